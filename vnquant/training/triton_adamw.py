"""`vnquant.training.optimizer.adamw_` in two Triton kernels: the norm, then everything else."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vnquant.training.optimizer import BETA1, BETA2, EPSILON, step_of

BLOCK = 2048


@triton.jit
def squares(x, partial, size, row, chunks, BLOCK: tl.constexpr):
    """``partial[M, chunks]``: sums of squares of ``x [M, size]``."""
    m = (tl.program_id(0) // chunks).to(tl.int64)
    at = (tl.program_id(0) % chunks) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + m * row + at, mask=at < size, other=0.0)
    tl.store(partial + tl.program_id(0), tl.sum(value * value, 0))


@triton.jit
def adamw(
    weights, first, second, gradient, decay, clip, on, rate, size, scale, count, row, chunks,
    one_less_beta1, one_less_beta2, epsilon, BLOCK: tl.constexpr,
):  # fmt: skip
    """`vnquant.training.optimizer.adamw_` in one pass; ``clip``, ``on`` ... are one per model."""
    m = (tl.program_id(0) // chunks).to(tl.int64)
    at = (tl.program_id(0) % chunks) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    here = m * row + at
    moves = tl.load(on + m)
    g = tl.load(gradient + here, mask=mask, other=0.0) * tl.load(clip + m)
    # Not a product: 0 times the infinity of a diverged model would be NaN.
    g = tl.where(moves > 0, g, 0.0)
    a = tl.load(first + here, mask=mask, other=0.0)
    b = tl.load(second + here, mask=mask, other=0.0)
    a += (g - a) * (moves * one_less_beta1)
    b += (g * g - b) * (moves * one_less_beta2)
    tl.store(first + here, a, mask=mask)
    tl.store(second + here, b, mask=mask)
    update = a / (tl.sqrt(b) * tl.load(scale + m) + epsilon)
    w = tl.load(weights + here, mask=mask, other=0.0)
    w *= 1.0 - tl.load(rate + m) * moves * tl.load(decay + at, mask=mask, other=0.0)
    tl.store(weights + here, w - tl.load(size + m) * update, mask=mask)


def adamw_(
    weights: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    gradient: torch.Tensor,
    step: torch.Tensor,
    rate: torch.Tensor,
    decay: torch.Tensor,
    moving: torch.Tensor,
    clip_norm: float,
) -> torch.Tensor:
    """`vnquant.training.optimizer.adamw_` as two kernels; the same arguments and result."""
    models, size = gradient.shape
    chunks = -(-size // BLOCK)
    partial = gradient.new_empty(models, chunks)
    grid = (models * chunks,)
    squares[grid](gradient, partial, size, gradient.stride(0), chunks, BLOCK)
    by = step_of(partial.sum(1).sqrt(), step, rate, moving, clip_norm)
    on = by.takes.float()
    adamw[grid](
        *(weights, first, second, gradient, decay, by.clip, on, rate),
        *(by.size * on, by.scale, size, gradient.stride(0), chunks),
        *(1.0 - BETA1, 1.0 - BETA2, EPSILON, BLOCK),
    )
    return by.finite
