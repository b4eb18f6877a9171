"""AdamW for a stack: every model has its own step count, rate, clipping and fate.

Loshchilov & Hutter 2019, applied to rows of ``[M, P]``. A model that is idle, stopped or diverged
keeps its row bit for bit: weights, both moments, no decay.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

BETA1 = 0.9
BETA2 = 0.999
EPSILON = 1e-8


class Schedule(NamedTuple):
    """Linear warm-up, then a cosine to zero over each model's own number of steps."""

    rate: float
    warmup_fraction: float

    def __call__(self, step: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """Learning rates float32 ``[M]`` at each model's ``step`` of ``total`` (both ``[M]``)."""
        s, n = step.float(), total.float()
        warm = (n * self.warmup_fraction).ceil().clamp(min=1.0)
        ramp = ((s + 1.0) / warm).clamp(max=1.0)
        phase = ((s - warm) / (n - warm).clamp(min=1.0)).clamp(0.0, 1.0)
        return self.rate * ramp * 0.5 * (1.0 + torch.cos(math.pi * phase))


class Step(NamedTuple):
    """What one update multiplies each model by; all ``[M]``."""

    finite: torch.Tensor
    """bool: whether the gradient is."""
    takes: torch.Tensor
    """bool: whether the model moves."""
    clip: torch.Tensor
    """Of the gradient."""
    size: torch.Tensor
    """Of the update: the rate, corrected for the first moment's start at zero."""
    scale: torch.Tensor
    """Of the second moment's root, for the same reason."""


def step_of(
    norm: torch.Tensor,
    step: torch.Tensor,
    rate: torch.Tensor,
    moving: torch.Tensor,
    clip_norm: float,
) -> Step:
    """Factors of an update from each model's gradient norm; the other arguments as in `adamw_`."""
    finite = torch.isfinite(norm)
    t = (step + 1).float()
    return Step(
        finite=finite,
        takes=moving & finite,
        clip=(clip_norm / (norm + 1e-6)).clamp(max=1.0),
        size=rate / (1.0 - BETA1**t),
        scale=1.0 / (1.0 - BETA2**t).sqrt(),
    )


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
    """One update in place; returns which models had a finite gradient, bool ``[M]``.

    Args:
        weights, first, second: float32 ``[M, P]``: parameters and both moments.
        gradient: float32 ``[M, P]``.
        step: int ``[M]``: steps each model has already taken.
        rate: float32 ``[M]``.
        decay: float32 ``[P]``: weight decay of each element.
        moving: bool ``[M]``: models that take this step.
        clip_norm: largest gradient norm of one model.
    """
    by = step_of(torch.linalg.vector_norm(gradient, dim=1), step, rate, moving, clip_norm)
    take = by.takes.unsqueeze(1)
    # Zero out rows that stay, so that neither NaN nor decay can reach them below.
    clipped = torch.where(take, gradient * by.clip[:, None], 0.0)
    on = take.to(weights.dtype)
    first.lerp_(clipped, on * (1.0 - BETA1))
    second.lerp_(clipped * clipped, on * (1.0 - BETA2))
    update = first / (second.sqrt() * by.scale.unsqueeze(1) + EPSILON)
    weights.mul_(1.0 - (rate.unsqueeze(1) * on) * decay)
    weights.sub_(by.size.unsqueeze(1) * on * update)
    return by.finite
