"""How much each member of an ensemble counts, learned from windows that it was not fitted to.

All weights are positive or zero and sum to one, so a weighted ensemble is still a mixture: its
mean, variance and probability are those of a distribution.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BLOCKS = 5
"""Stretches of sessions that are held out in turn to choose how far to trust the fit."""
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Pull towards equal weights, as a multiple of a member's mean sum of squares."""
TINY = 1e-12


def inverse_loss(forecasts: Floats, outcomes: Floats) -> Floats:
    """Weights ``[M]`` by one over each member's mean squared error.

    The squared error, because the training loss, a negative log-likelihood, may be negative.

    Args:
        forecasts: ``[N, M]``.
        outcomes: ``[N]``.
    """
    error = np.mean((forecasts - outcomes[:, None]) ** 2, axis=0)
    inverse = 1.0 / np.maximum(error, TINY)
    return np.asarray(inverse / inverse.sum())


def stacked(
    forecasts: Floats, outcomes: Floats, sessions: npt.NDArray[np.int64], purge: int
) -> Floats:
    """Weights ``[M]`` of a convex combination, by regression pulled towards equal weights.

    Stacked regression with weights that are not negative (Breiman 1996), a ridge penalty on the
    distance from 1/M, and the penalty chosen by cross-validation over `BLOCKS` stretches of time.
    What lies within ``purge`` sessions of the stretch that is held out is left out of the fit, so
    that no outcome reaches into it. The equal weights compete too: they are kept unless a fit
    forecasts the held-out stretches better.

    Args:
        forecasts: ``[N, M]``, of all symbols in common units.
        outcomes: ``[N]``, sums over the horizon.
        sessions: of each forecast ``[N]``, indices into the calendar.
        purge: sessions, at least the horizon.
    """
    members = forecasts.shape[1]
    equal = np.full(members, 1.0 / members)
    edges = np.quantile(sessions, np.linspace(0.0, 1.0, BLOCKS + 1))
    error, alone = np.zeros(len(STRENGTHS)), 0.0
    for begin, end in pairwise(edges):
        held = (sessions >= begin) & (sessions <= end)
        known = (sessions < begin - purge) | (sessions > end + purge)
        if not known.any():
            return equal
        alone += _squared_error(forecasts[held], outcomes[held], equal)
        for i, strength in enumerate(STRENGTHS):
            weights = _fit(forecasts[known], outcomes[known], strength)
            error[i] += _squared_error(forecasts[held], outcomes[held], weights)
    best = int(error.argmin())
    return _fit(forecasts, outcomes, STRENGTHS[best]) if error[best] < alone else equal


def _squared_error(forecasts: Floats, outcomes: Floats, weights: Floats) -> float:
    return float(np.sum((forecasts @ weights - outcomes) ** 2))


def _fit(forecasts: Floats, outcomes: Floats, strength: float) -> Floats:
    from sklearn.linear_model import LinearRegression  # a second that equal weights need not wait

    members = forecasts.shape[1]
    pull = np.sqrt(strength * np.sum(forecasts**2) / members)
    x = np.vstack([forecasts, pull * np.eye(members)])
    y = np.concatenate([outcomes, np.full(members, pull / members)])
    weights = np.asarray(LinearRegression(fit_intercept=False, positive=True).fit(x, y).coef_)
    total = float(weights.sum())
    return weights / total if total > TINY else np.full(members, 1.0 / members)
