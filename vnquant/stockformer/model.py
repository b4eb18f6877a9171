"""The forward pass of a stack of Stockformers.

Pre-norm transformer encoder (Vaswani et al. 2017; pre-norm as in Xiong et al. 2020): input
projection, sinusoidal positions, self-attention and GELU feed-forward layers, the last session's
token as context, one linear head. Models never mix: every product has the model axis as batch.

Dropout acts after the embedding, on the attention output, and twice in the feed-forward part.
Attention weights themselves are not dropped: 60 tokens with 16-wide heads would spend more on
that mask than on the attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from vnquant.stockformer.layout import Shape
from vnquant.stockformer.randomness import dropout

Params = dict[str, torch.Tensor]

NORM_EPSILON = 1e-5
"""Added to the variance; torch's default."""


class Drop(NamedTuple):
    """Dropout of one step: keys int32 ``[M, sites, 2]`` and levels int32 ``[M]``."""

    keys: torch.Tensor
    level: torch.Tensor

    def __call__(self, x: torch.Tensor, site: int) -> torch.Tensor:
        return dropout(x, self.keys[:, site], self.level)


def sites(shape: Shape) -> int:
    """How many places drop: the embedding and three in each layer."""
    return 1 + 3 * shape.layers


def positions(
    lookback: int, d_model: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Sinusoidal positional encoding ``[lookback, d_model]``."""
    place = torch.arange(lookback, device=device, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(
        torch.arange(0, d_model, 2, device=device, dtype=torch.float32) * (-math.log(1e4) / d_model)
    )
    return torch.stack((torch.sin(place * rate), torch.cos(place * rate)), -1).flatten(1).to(dtype)


class _Linear(torch.autograd.Function):
    """``[M, N, in] @ [M, in, out] + [M, out]``, with the bias gradient as a product on CUDA.

    Left to itself, autograd sums the bias gradient over thousands of tokens in a reduction that
    ran far below the memory bandwidth on an H100 (benchmarks/NOTES.md); as a product with rows of
    ones it is one more small matmul.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(1), x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        to_x = torch.bmm(grad, weight.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        if grad.is_cuda:
            # Sixteen equal rows, of which one is used: that is the narrowest tensor-core product.
            ones = grad.new_ones(1, 16, 1).expand(grad.shape[0], 16, grad.shape[1])
            to_bias = torch.bmm(ones, grad)[:, 0]
        else:
            to_bias = grad.sum(1)
        return to_x, torch.bmm(x.transpose(1, 2), grad), to_bias


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``[M, N, in] @ [M, in, out] + [M, out]``."""
    out: torch.Tensor = _Linear.apply(x, weight, bias)
    return out


def norm(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Layer norm of ``[M, N, D]`` with a gain and bias ``[M, D]`` for each model."""
    normed = F.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON)
    return torch.addcmul(bias.unsqueeze(1), normed, gain.unsqueeze(1))


def without_keys(bias: torch.Tensor, parts: int) -> torch.Tensor:
    """Zero the key part of a projection bias ``[M, parts * D]`` (order: query if any, key, value).

    Softmax does not see a constant added to all scores, so the key bias has no effect and its
    gradient is pure rounding noise, which AdamW would blow up to full steps: the one parameter
    that would make a model depend on the stack it was trained in.
    """
    width = bias.shape[1] // parts
    keys = (parts - 2) * width
    return torch.cat(
        (bias[:, :keys], torch.zeros_like(bias[:, :width]), bias[:, keys + width :]), 1
    )


def embed(x: torch.Tensor, p: Params, drop: Drop | None) -> torch.Tensor:
    """Windows ``[M, B, T, F]`` to tokens ``[M, B*T, D]``."""
    models, batch, lookback, features = x.shape
    d_model = p["input.bias"].shape[1]
    h = linear(x.reshape(models, batch * lookback, features), p["input.weight"], p["input.bias"])
    h = h.view(models, batch, lookback, d_model) + positions(lookback, d_model, x.device, x.dtype)
    h = h.view(models, batch * lookback, d_model)
    return h if drop is None else drop(h, 0)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention ``[M*B, T?, H, d] -> [M*B, T?, H*d]``: models are folded into the batch."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)


def feed_forward(h: torch.Tensor, p: Params, drop: Drop | None) -> torch.Tensor:
    f = F.gelu(linear(norm(h, p["norm2.gain"], p["norm2.bias"]), p["ff1.weight"], p["ff1.bias"]))
    if drop is not None:
        f = drop(f, 1)
    f = linear(f, p["ff2.weight"], p["ff2.bias"])
    return h + (f if drop is None else drop(f, 2))


def layer(
    h: torch.Tensor, p: Params, batch: int, lookback: int, heads: int, drop: Drop | None
) -> torch.Tensor:
    """One encoder layer: ``[M, B*T, D] -> [M, B*T, D]``; ``p`` holds this layer's parameters."""
    models, tokens, d_model = h.shape
    n = norm(h, p["norm1.gain"], p["norm1.bias"])
    qkv = linear(n, p["qkv.weight"], without_keys(p["qkv.bias"], 3))
    q, k, v = qkv.view(models * batch, lookback, 3, heads, d_model // heads).unbind(2)
    a = linear(_attend(q, k, v).view(models, tokens, d_model), p["out.weight"], p["out.bias"])
    h = h + (a if drop is None else drop(a, 0))
    return feed_forward(h, p, drop)


def last_layer(
    h: torch.Tensor, p: Params, batch: int, lookback: int, heads: int, drop: Drop | None
) -> torch.Tensor:
    """The final layer for the last session only: ``[M, B*T, D] -> [M, B, D]``.

    Nothing after it reads the other tokens, so their queries and feed-forward are not computed.
    """
    models, _, d_model = h.shape
    n = norm(h, p["norm1.gain"], p["norm1.bias"])
    final = n.view(models, batch, lookback, d_model)[:, :, -1]
    q = linear(final, p["q.weight"], p["q.bias"])
    kv = linear(n, p["kv.weight"], without_keys(p["kv.bias"], 2))
    k, v = kv.view(models * batch, lookback, 2, heads, d_model // heads).unbind(2)
    q = q.view(models * batch, 1, heads, d_model // heads)
    a = linear(_attend(q, k, v).view(models, batch, d_model), p["out.weight"], p["out.bias"])
    h = h.view(models, batch, lookback, d_model)[:, :, -1]
    h = h + (a if drop is None else drop(a, 0))
    return feed_forward(h, p, drop)


def head(h: torch.Tensor, p: Params) -> torch.Tensor:
    """Context ``[M, B, D]`` to raw outputs ``[M, B, 2*horizon + 1]``, in float32."""
    n = norm(h, p["norm.gain"], p["norm.bias"])
    return linear(n, p["head.weight"], p["head.bias"]).float()


class Pieces(NamedTuple):
    """The callables of the forward pass, so that a compiled set can stand in for the plain one.

    Compiling one layer and calling it L times costs one compilation for every depth of ensemble.
    """

    embed: Callable[..., torch.Tensor] = embed
    layer: Callable[..., torch.Tensor] = layer
    last_layer: Callable[..., torch.Tensor] = last_layer
    head: Callable[..., torch.Tensor] = head


PLAIN = Pieces()


def forward(
    shape: Shape,
    rows: torch.Tensor,
    x: torch.Tensor,
    drop: Drop | None = None,
    pieces: Pieces = PLAIN,
) -> torch.Tensor:
    """Raw outputs of a stack.

    Args:
        rows: parameters float32 ``[M, P]``; computed with in the dtype of ``x``.
        x: scaled windows ``[M, B, T, F]``, float32 or bfloat16.
        drop: dropout of this step; None for inference.

    Returns:
        float32 ``[M, B, 2*horizon + 1]``; see `vnquant.stockformer.losses.split_outputs`.
    """
    p = shape.views(rows)
    if pieces is not PLAIN or rows.dtype != x.dtype:
        # Contiguous copies: a view's row stride is P, which differs with the depth, and a compiled
        # layer would be compiled again for every depth. In bfloat16 the cast copies anyway.
        p = {k: v.to(x.dtype).contiguous() for k, v in p.items()}
    batch, lookback = x.shape[1], x.shape[2]
    h = pieces.embed(x, {k: p[k] for k in ("input.weight", "input.bias")}, drop)
    for i in range(shape.layers):
        prefix = f"layers.{i}."
        own = {k[len(prefix) :]: t for k, t in p.items() if k.startswith(prefix)}
        here = None if drop is None else Drop(drop.keys[:, 1 + 3 * i : 4 + 3 * i], drop.level)
        step = pieces.last_layer if i == shape.layers - 1 else pieces.layer
        h = step(h, own, batch, lookback, shape.heads, here)
    names = ("norm.gain", "norm.bias", "head.weight", "head.bias")
    return pieces.head(h, {k: p[k] for k in names})
