"""Calls of the Triton kernels: forward and backward of embedding, layers and last attention.

Gradients of parameters land directly in the float32 rows that the optimiser reads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from vnquant.stockformer import triton_ends as tails
from vnquant.stockformer import triton_kernels as tk
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.model import Drop, positions

LARGEST_LOOKBACK = 128
LARGEST_FEATURES = 64
"""Wider windows have not been tried: the kernel of the input holds all features of a token."""

# Triton's name of a kernel in its cache holds the constants of a function that it calls only where
# that function was named before. Name all of them in one order, and every process finds the same.
for _function in (*vars(tk).values(), *vars(tails).values()):
    if isinstance(_function, triton.JITFunction):
        _ = _function.cache_key


class Tiles(NamedTuple):
    """Block sizes and warps of one kernel; measured on an H100 (benchmarks/NOTES.md)."""

    rows: int
    columns: int
    warps: int
    stages: int = 2

    @property
    def launch(self) -> dict[str, int]:
        """Triton's options of a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages}


NORM_LINEAR = Tiles(64, 64, 8, 3)
NORM_LINEAR_BACKWARD = Tiles(64, 64, 4, 3)
ATTENTION = Tiles(64, 16, 4)
FEED_FORWARD = Tiles(64, 64, 4, 3)
FEED_FORWARD_BACKWARD = Tiles(64, 64, 4, 2)
EMBED = Tiles(64, 64, 4)


def _power_of_two(n: int) -> bool:
    return n >= 16 and n & (n - 1) == 0


def supports(shape: Shape) -> bool:
    """Whether the kernels can take these sizes; the compiled path takes any."""
    widths = (shape.d_model, shape.d_ff, shape.d_model // shape.heads)
    return (
        all(map(_power_of_two, widths))
        and 64 <= shape.d_model <= 256
        and shape.d_ff >= 128
        and shape.lookback <= LARGEST_LOOKBACK
        and shape.features <= LARGEST_FEATURES
        and shape.layers > 1
    )


class _Saved(NamedTuple):
    """What a layer's backward pass needs."""

    h: torch.Tensor
    qkv: torch.Tensor
    attended: torch.Tensor
    middle: torch.Tensor


class Layers:
    """All encoder layers of a stack but the last.

    Args:
        rows: bfloat16 ``[M, P]``, contiguous.
        gradient: float32 ``[M, P]``; the layers' parts of it are filled by `backward`.
        batch: windows per model.
    """

    def __init__(
        self, shape: Shape, rows: torch.Tensor, gradient: torch.Tensor, drop: Drop, batch: int
    ) -> None:
        self.shape, self.rows, self.gradient = shape, rows, gradient
        self.drop, self.batch = drop, batch
        self.at = {p.name: p.offset for p in shape.parameters}
        self.sizes = {p.name: p.size for p in shape.parameters}
        self.tokens = batch * shape.lookback
        self.saved: list[_Saved] = []

    def _offsets(self, i: int, *names: str) -> list[int]:
        return [self.at[f"layers.{i}.{name}"] for name in names]

    def _grid(self, rows: int) -> tuple[int]:
        return (self.rows.shape[0] * -(-self.tokens // rows),)

    def _keys(self, i: int) -> torch.Tensor:
        return self.drop.keys[:, 1 + 3 * i :]

    def forward(self, h: torch.Tensor, *, keep: bool = True) -> torch.Tensor:
        """``[M, N, D] -> [M, N, D]``; ``keep`` what `backward` needs."""
        for i in range(self.shape.layers - 1):
            h = self._layer(i, h)
            if not keep:
                self.saved.clear()
        return h

    def _layer(self, i: int, h: torch.Tensor) -> torch.Tensor:
        shape, (models, tokens, d) = self.shape, h.shape
        p = self.rows.stride(0)
        qkv = self._project(i, h, "qkv")
        attended = torch.empty_like(h)
        tk.attention[(models * self.batch * shape.heads,)](
            *(qkv, attended, *self._attention_sizes(d)),
            num_warps=ATTENTION.warps,
        )
        middle, y = torch.empty_like(h), torch.empty_like(h)
        t = FEED_FORWARD
        tk.residual_feed_forward[self._grid(t.rows)](
            *(h, attended, self.rows, self._keys(i), self.drop.level, middle, y, tokens, p),
            self.drop.keys.stride(0),
            *self._offsets(i, "out.weight", "out.bias", "norm2.gain", "norm2.bias"),
            *self._offsets(i, "ff1.weight", "ff1.bias", "ff2.weight", "ff2.bias"),
            *(d, shape.d_ff, t.rows, t.columns),
            **t.launch,
        )
        self.saved.append(_Saved(h, qkv, attended, middle))
        return y

    def _attention_sizes(self, d: int) -> tuple[int, float, int, int, int, int]:
        width = d // self.shape.heads
        tile = 64 if self.shape.lookback <= 64 else LARGEST_LOOKBACK
        return self.shape.lookback, width**-0.5, d, self.shape.heads, width, tile

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """From the gradient of the output to that of the input, both ``[M, N, D]``."""
        for i in reversed(range(self.shape.layers - 1)):
            grad = self._layer_backward(i, grad.contiguous(), self.saved.pop())
        return grad

    def _layer_backward(self, i: int, grad: torch.Tensor, saved: _Saved) -> torch.Tensor:
        shape, (models, tokens, d) = self.shape, grad.shape
        p, ff = self.rows.stride(0), self.shape.d_ff
        t = FEED_FORWARD_BACKWARD
        middle, projected, attended, normed, second = (torch.empty_like(grad) for _ in range(5))
        hidden, first = (grad.new_empty(models, tokens, ff) for _ in range(2))
        sums = self.gradient.new_empty(models, -(-tokens // t.rows), 4 * d + ff)
        tk.residual_feed_forward_backward[self._grid(t.rows)](
            *(saved.middle, grad, self.rows, self._keys(i), self.drop.level),
            *(middle, projected, attended, normed, hidden, first, second, sums),
            *(tokens, p, self.drop.keys.stride(0)),
            *self._offsets(i, "out.weight", "norm2.gain", "norm2.bias"),
            *self._offsets(i, "ff1.weight", "ff1.bias", "ff2.weight"),
            *(d, ff, t.rows, t.columns),
            **t.launch,
        )
        self._weight(f"layers.{i}.ff2.weight", hidden, second)
        self._weight(f"layers.{i}.ff1.weight", normed, first)
        self._weight(f"layers.{i}.out.weight", saved.attended, projected)
        self._sums(
            sums,
            *(f"layers.{i}.{n}" for n in ("norm2.gain", "norm2.bias", "ff2.bias", "out.bias")),
            f"layers.{i}.ff1.bias",
        )
        dqkv = torch.empty_like(saved.qkv)
        tk.attention_backward[(models * self.batch * shape.heads,)](
            *(saved.qkv, attended, dqkv, *self._attention_sizes(d)),
            num_warps=ATTENTION.warps,
        )
        return self._project_backward(i, saved.h, dqkv, middle, "qkv")

    def _project(self, i: int, h: torch.Tensor, name: str) -> torch.Tensor:
        """A layer's norm and its product ``qkv`` or ``kv``: ``[M, N, D] -> [M, N, parts * D]``."""
        models, tokens, d = h.shape
        t, width = NORM_LINEAR, self.sizes[f"layers.{i}.{name}.bias"]
        out = h.new_empty(models, tokens, width)
        tk.norm_linear[self._grid(t.rows)](
            *(h, self.rows, out, tokens, self.rows.stride(0)),
            *self._offsets(i, "norm1.gain", "norm1.bias", f"{name}.weight", f"{name}.bias"),
            *(width - 2 * d, d, width, t.rows, min(t.columns, d)),
            **t.launch,
        )
        return out

    def _project_backward(
        self, i: int, h: torch.Tensor, grad: torch.Tensor, skip: torch.Tensor, name: str
    ) -> torch.Tensor:
        """From the gradient of `_project`'s result, and what goes around it, to that of ``h``."""
        models, tokens, d = h.shape
        t, width = NORM_LINEAR_BACKWARD, grad.shape[2]
        sums = self.gradient.new_empty(models, -(-tokens // t.rows), 2 * d + width)
        out, normed = torch.empty_like(h), torch.empty_like(h)
        tk.norm_linear_backward[self._grid(t.rows)](
            *(h, self.rows, grad, skip, out, normed, sums, tokens, self.rows.stride(0)),
            *self._offsets(i, "norm1.gain", "norm1.bias", f"{name}.weight"),
            *(d, width, t.rows, min(t.columns, d)),
            **t.launch,
        )
        self._weight(f"layers.{i}.{name}.weight", normed, grad)
        self._sums(sums, *(f"layers.{i}.{n}" for n in ("norm1.gain", "norm1.bias", f"{name}.bias")))
        # Keys have no bias: see `vnquant.stockformer.model.without_keys`.
        keys = self.at[f"layers.{i}.{name}.bias"] + width - 2 * d
        self.gradient[:, keys : keys + d] = 0.0
        return out

    def forward_last(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the last layer for all tokens ``[M, N, 2 D]``, and its last tokens."""
        models, _, d = h.shape
        kv = self._project(self.shape.layers - 1, h, "kv")
        return kv, h.view(models, self.batch, self.shape.lookback, d)[:, :, -1]

    def backward_last(
        self, h: torch.Tensor, dkv: torch.Tensor, dfinal: torch.Tensor
    ) -> torch.Tensor:
        """From gradients of `forward_last`'s two results to that of ``h``."""
        skip = torch.zeros_like(h)
        models, _, d = h.shape
        skip.view(models, self.batch, self.shape.lookback, d)[:, :, -1] = dfinal
        return self._project_backward(self.shape.layers - 1, h, dkv, skip, "kv")

    def attend_last(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        """Attention of the last tokens ``[M, B, D]`` over their windows."""
        y = torch.empty_like(q)
        tails.last_attention[(q.shape[0] * self.batch,)](
            *(q, kv, y, *self._attention_sizes(q.shape[2])), num_warps=4
        )
        return y

    def attend_last_backward(
        self, q: torch.Tensor, kv: torch.Tensor, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dq, dkv = torch.empty_like(q), torch.empty_like(kv)
        tails.last_attention_backward[(q.shape[0] * self.batch,)](
            *(q, kv, grad, dq, dkv, *self._attention_sizes(q.shape[2])), num_warps=4
        )
        return dq, dkv

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Windows ``[M, B, T, F]`` to tokens ``[M, N, D]``."""
        shape, models = self.shape, x.shape[0]
        y = x.new_empty(models, self.tokens, shape.d_model)
        tails.embed[self._grid(EMBED.rows)](
            *(x, self.rows, positions(shape.lookback, shape.d_model, x.device, torch.float32)),
            *(self.drop.keys, self.drop.level, y, self.tokens, shape.lookback),
            *(self.rows.stride(0), self.drop.keys.stride(0)),
            *(self.at["input.weight"], self.at["input.bias"]),
            *(shape.features, max(16, 1 << (shape.features - 1).bit_length())),
            *(shape.d_model, EMBED.rows),
            num_warps=EMBED.warps,
        )
        return y

    def embed_backward(self, x: torch.Tensor, grad: torch.Tensor) -> None:
        models, tokens, d = grad.shape
        sums = self.gradient.new_empty(models, -(-tokens // EMBED.rows), d)
        before = torch.empty_like(grad)
        tails.embed_backward[self._grid(EMBED.rows)](
            *(grad, self.drop.keys, self.drop.level, before, sums),
            *(tokens, self.drop.keys.stride(0), d, EMBED.rows),
            num_warps=EMBED.warps,
        )
        self._weight("input.weight", x.view(models, tokens, -1), before)
        self._sums(sums, "input.bias")

    def _weight(self, name: str, x: torch.Tensor, grad: torch.Tensor) -> None:
        """``x^T grad`` over a model's tokens, into the gradient's row."""
        size = (x.shape[2], grad.shape[2])
        here = self.gradient[:, self.at[name] : self.at[name] + self.sizes[name]]
        place = here.unflatten(1, size)
        if x.is_cuda:
            # Straight into the row, without rounding the sums to bfloat16 on the way.
            torch.bmm(x.transpose(1, 2), grad, out_dtype=place.dtype, out=place)
        else:
            place.copy_(torch.bmm(x.transpose(1, 2), grad))

    def _sums(self, partial: torch.Tensor, *names: str) -> None:
        """Add up the tiles' partial sums ``[M, tiles, W]`` and place them one after the other."""
        total, begin = partial.sum(1), 0
        for name in names:
            at, size = self.at[name], self.sizes[name]
            self.gradient[:, at : at + size] = total[:, begin : begin + size]
            begin += size
