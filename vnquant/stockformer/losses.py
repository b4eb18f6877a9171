"""From raw outputs to a forecast, and the loss that trains it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

SIGMA_FLOOR = 0.05
"""In units of the symbol's own daily volatility: keeps the likelihood bounded on flat stretches."""
TARGET_CLIP = 6.0
"""Standardised training targets are clipped here, so one limit-breaking day cannot own a batch."""


def _huber_deviation() -> float:
    """Standard deviation of Huber's density, exp(-x²/2) up to 1 and exp(1/2 - |x|) beyond."""
    edge = math.exp(-0.5)
    middle = math.sqrt(math.pi / 2) * math.erf(math.sqrt(0.5))
    return math.sqrt((middle - edge + 5 * edge) / (middle + edge))


HUBER_DEVIATION = _huber_deviation()
"""By which errors are multiplied, so that sigma is a standard deviation under this loss too."""


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
    raw: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    direction_weight: float,
    likelihood: str = "gaussian",
) -> torch.Tensor:
    """Mean loss of each model: ``[M]``. Sum it, never average it, to train the stack.

    Args:
        raw: outputs ``[M, B, 2H + 1]``.
        target: standardised daily returns ``[M, B, H]``.
        weight: ``[M, B]``, 1 for a window and 0 for padding.
        direction_weight: of the cross-entropy beside the path's negative log-likelihood.
        likelihood: ``gaussian``, or ``huber`` (Huber 1964): a Gaussian middle with tails that are
            exponential from one unit of scale on, so that no day pulls harder than a near one.
    """
    out = split_outputs(raw)
    rise = (target.sum(-1) > 0).to(raw.dtype)
    error = (target.clamp(-TARGET_CLIP, TARGET_CLIP) - out.mu) / out.sigma
    if likelihood == "huber":
        error = error * HUBER_DEVIATION
        surprise = F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=1.0)
    else:
        surprise = 0.5 * error * error
    path = (surprise + out.sigma.log()).mean(-1)
    direction = F.binary_cross_entropy_with_logits(out.logit, rise, reduction="none")
    each = (path + direction_weight * direction) * weight
    return each.sum(1) / weight.sum(1).clamp(min=1.0)


def ranking_loss(
    raw: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    session: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Mean pairwise logistic loss among the windows of a session, of each model: ``[M]``.

    RankNet (Burges et al. 2005): of two symbols on one day, the one that rose more is to have the
    higher expected return. Both are sums over the horizon. A model whose batch has no such pair
    has loss 0.

    Args:
        raw, target, weight: as `per_model_loss` takes them.
        session: int ``[M, B]``, of each window's last session.
        scale: float32 ``[M, B]``, what turns a standardised return into one that can be compared
            between symbols, 1 on average.
    """
    expected = split_outputs(raw).mu.sum(-1) * scale
    realised = target.sum(-1) * scale
    higher = realised.unsqueeze(2) > realised.unsqueeze(1)
    pair = higher & (session.unsqueeze(2) == session.unsqueeze(1))
    counts = pair * weight.unsqueeze(2) * weight.unsqueeze(1)
    each = F.softplus(expected.unsqueeze(1) - expected.unsqueeze(2)) * counts
    return each.sum((1, 2)) / counts.sum((1, 2)).clamp(min=1.0)
