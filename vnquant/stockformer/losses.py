"""From raw outputs to a forecast, and the loss that trains it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

SIGMA_FLOOR = 0.05
"""In units of the symbol's own daily volatility: keeps the likelihood bounded on flat stretches."""
TARGET_CLIP = 6.0
"""Standardised training targets are clipped here, so one limit-breaking day cannot own a batch."""


class Outputs(NamedTuple):
    """A standardised forecast: returns in units of the symbol's daily volatility."""

    mu: torch.Tensor
    """Expected daily returns ``[M, B, H]``."""
    sigma: torch.Tensor
    """Their standard deviations ``[M, B, H]``, at least SIGMA_FLOOR."""
    logit: torch.Tensor
    """Log-odds that the sum over the horizon is positive ``[M, B]``."""


def split_outputs(raw: torch.Tensor) -> Outputs:
    """Read raw outputs ``[M, B, 2H + 1]``."""
    horizon = (raw.shape[-1] - 1) // 2
    mu, scale, logit = raw.split((horizon, horizon, 1), dim=-1)
    # softplus(0.5413) = 1: an untrained model forecasts the symbol's own volatility.
    return Outputs(mu, F.softplus(scale + 0.5413) + SIGMA_FLOOR, logit.squeeze(-1))


def per_model_loss(
    raw: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, direction_weight: float
) -> torch.Tensor:
    """Mean loss of each model: ``[M]``. Sum it, never average it, to train the stack.

    Args:
        raw: outputs ``[M, B, 2H + 1]``.
        target: standardised daily returns ``[M, B, H]``.
        weight: ``[M, B]``, 1 for a window and 0 for padding.
        direction_weight: of the cross-entropy beside the Gaussian negative log-likelihood.
    """
    out = split_outputs(raw)
    rise = (target.sum(-1) > 0).to(raw.dtype)
    error = (target.clamp(-TARGET_CLIP, TARGET_CLIP) - out.mu) / out.sigma
    path = (0.5 * error * error + out.sigma.log()).mean(-1)
    direction = F.binary_cross_entropy_with_logits(out.logit, rise, reduction="none")
    each = (path + direction_weight * direction) * weight
    return each.sum(1) / weight.sum(1).clamp(min=1.0)
