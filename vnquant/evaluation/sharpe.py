"""How sure a Sharpe ratio is: probabilistic, and deflated for the number of strategies tried.

Bailey and Lopez de Prado: The Sharpe Ratio Efficient Frontier (2012), The Deflated Sharpe Ratio
(2014). All ratios here are per observation (per session), never annual: divide an annual one by
the root of the observations in a year.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from vnquant.errors import UsageError

Floats = npt.NDArray[np.float64]

EULER = 0.5772156649015329
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Moments:
    """``sharpe`` of a session, ``skew``, ``kurtosis`` (3 for a Gaussian) of ``n`` returns."""

    n: int
    sharpe: float
    skew: float
    kurtosis: float


def moments(returns: Floats) -> Moments | None:
    """Of a series of returns; None for fewer than three, or without variation."""
    if len(returns) < 3:
        return None
    d = returns - returns.mean()
    deviation = float(np.sqrt(np.mean(d**2)))
    if deviation <= 1e-15:
        return None
    return Moments(
        len(returns),
        float(returns.mean() / returns.std(ddof=1)),
        float(np.mean(d**3) / deviation**3),
        float(np.mean(d**4) / deviation**4),
    )


def _spread(of: Moments) -> float:
    """Standard error of the Sharpe ratio times the root of n - 1 (Mertens 2002)."""
    return math.sqrt(max(1 - of.skew * of.sharpe + (of.kurtosis - 1) / 4 * of.sharpe**2, 1e-15))


def probabilistic_sharpe(of: Moments, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio exceeds ``benchmark``, given skew and fat tails.

    Assumes returns that are not autocorrelated: those of overlapping sleeves still are returns of
    single sessions, which is what belongs here; sums over several sessions do not.
    """
    return _NORMAL.cdf((of.sharpe - benchmark) * math.sqrt(of.n - 1) / _spread(of))


def least_track_record(of: Moments, benchmark: float = 0.0, level: float = 0.95) -> float | None:
    """Observations needed to be ``level`` sure that the ratio exceeds ``benchmark``.

    None where it does not exceed it.
    """
    if of.sharpe <= benchmark:
        return None
    z = _NORMAL.inv_cdf(level)
    return 1 + (_spread(of) * z / (of.sharpe - benchmark)) ** 2


def expected_best(trials: int, variance: float) -> float:
    """Expected highest Sharpe ratio of ``trials`` independent strategies without any skill.

    Args:
        variance: of the Sharpe ratios over the trials.

    Raises:
        UsageError: fewer than one trial, or a negative variance.
    """
    if trials < 1 or not variance >= 0:
        raise UsageError(
            f"{trials} trials with a variance of {variance!r}",
            where="deflated Sharpe ratio",
            fix="count every strategy that was tried, at least this one",
        )
    if trials == 1:
        return 0.0
    first = _NORMAL.inv_cdf(1 - 1 / trials)
    second = _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - EULER) * first + EULER * second)


def deflated_sharpe(of: Moments, trials: int, variance: float) -> float:
    """Probability that the best of ``trials`` strategies has skill: `probabilistic_sharpe` with
    `expected_best` as benchmark. Correlated trials count as fewer: give their effective number."""
    return probabilistic_sharpe(of, expected_best(trials, variance))
