"""One training step's loss and gradient on CUDA, mostly by Triton kernels.

The same arithmetic as autograd through `vnquant.stockformer.model.forward`, within bfloat16's
rounding (tests/stockformer/test_fused.py states how close). The kernels handle everything that
touches all tokens; autograd handles the one token of each window that the head reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vnquant.stockformer.fused_layers import Layers, supports
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.model import Drop, Params, feed_forward, head, linear, norm, sites

__all__ = ["gradient", "outputs", "supports"]


def _tail(
    final: torch.Tensor, attended: torch.Tensor, p: Params, drop: Drop | None
) -> torch.Tensor:
    """What follows the last attention, for one token of each window: raw outputs."""
    a = linear(attended, p["out.weight"], p["out.bias"])
    return head(feed_forward(final + (a if drop is None else drop(a, 0)), p, drop), p)


def _full(shape: Shape, name: str) -> str:
    """The name in a row of a parameter of the last layer or the head."""
    return name if name.startswith(("norm.", "head.")) else f"layers.{shape.layers - 1}.{name}"


def _own(shape: Shape, half: torch.Tensor, names: Sequence[str]) -> Params:
    """Leaves of those parameters of the last layer and the head that autograd takes care of."""
    where = {p.name: p for p in shape.parameters}
    out = {}
    for name in names:
        p = where[_full(shape, name)]
        part = half[:, p.offset : p.offset + p.size].unflatten(1, p.shape)
        out[name] = part.requires_grad_()
    return out


QUERY = ("norm1.gain", "norm1.bias", "q.weight", "q.bias")
TAIL = (
    *("out.weight", "out.bias", "norm2.gain", "norm2.bias", "ff1.weight", "ff1.bias"),
    *("ff2.weight", "ff2.bias", "norm.gain", "norm.bias", "head.weight", "head.bias"),
)


def gradient(
    shape: Shape,
    rows: torch.Tensor,
    x: torch.Tensor,
    drop: Drop,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss ``[M]`` and its gradient float32 ``[M, P]``.

    Args:
        rows: parameters float32 ``[M, P]``.
        x: scaled windows bfloat16 ``[M, B, T, F]`` on the GPU, contiguous.
        loss_of: from raw outputs ``[M, B, 2H + 1]`` to the loss of each model ``[M]``.
    """
    half = rows.detach().to(x.dtype)
    total = torch.empty_like(rows)
    shape.clear_padding(total)
    layers = Layers(shape, half, total, drop, x.shape[1])
    h = layers.forward(layers.embed(x))
    kv, final = layers.forward_last(h)
    ask, rest = _own(shape, half, QUERY), _own(shape, half, TAIL)
    # Autograd handles one token of each window; the cuts are where the kernels join in.
    final = final.contiguous().requires_grad_()
    normed = norm(final, ask["norm1.gain"], ask["norm1.bias"])
    q = linear(normed, ask["q.weight"], ask["q.bias"])
    attended = layers.attend_last(q.detach(), kv).requires_grad_()
    here = Drop(drop.keys[:, 1 + 3 * (shape.layers - 1) :], drop.level)
    loss = loss_of(_tail(final, attended, rest, here))
    dattended, dfinal, *drest = torch.autograd.grad(loss.sum(), [attended, final, *rest.values()])
    dq, dkv = layers.attend_last_backward(q.detach(), kv, dattended.contiguous())
    dfinal2, *dask = torch.autograd.grad(q, [final, *ask.values()], dq)
    grad = layers.backward_last(h, dkv, dfinal + dfinal2)
    layers.embed_backward(x, layers.backward(grad))
    for names, grads in ((TAIL, drest), (QUERY, dask)):
        for name, value in zip(names, grads, strict=True):
            full = _full(shape, name)
            place = total[:, layers.at[full] : layers.at[full] + layers.sizes[full]]
            if name.startswith("norm1."):
                place += value.flatten(1)  # the kernel has written the part of keys and values
            else:
                place.copy_(value.flatten(1))
    return loss.detach(), total


def outputs(shape: Shape, rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Raw outputs without dropout, float32 ``[M, B, 2H + 1]``; arguments as in `gradient`."""
    models = rows.shape[0]
    keys = torch.zeros(models, sites(shape), 2, dtype=torch.int32, device=x.device)
    none = Drop(keys, torch.zeros(models, dtype=torch.int32, device=x.device))
    half = rows.detach().to(x.dtype)
    layers = Layers(shape, half, half, none, x.shape[1])
    h = layers.forward(layers.embed(x), keep=False)
    kv, final = layers.forward_last(h)
    p = {name: t.detach() for name, t in _own(shape, half, (*QUERY, *TAIL)).items()}
    normed = norm(final.contiguous(), p["norm1.gain"], p["norm1.bias"])
    attended = layers.attend_last(linear(normed, p["q.weight"], p["q.bias"]), kv)
    return _tail(final, attended, p, None)
