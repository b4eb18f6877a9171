"""Whether forecast and realised direction go together, beyond what their frequencies explain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from vnquant.evaluation.intervals import newey_west_se
from vnquant.evaluation.overlap import overlap_lag

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DirectionTest:
    """``accuracy`` against ``expected``, that of independent directions of the same frequencies.

    ``p_value`` is one-sided: small where the forecast is right more often. ``statistic`` and
    ``p_value`` are None where a direction never varies, or for too few dates.
    """

    n: int
    accuracy: float
    expected: float
    statistic: float | None
    p_value: float | None


def pesaran_timmermann(said: Bools, up: Bools) -> DirectionTest | None:
    """The test of Pesaran and Timmermann (1992) on independent rows; None without rows.

    For windows that do not overlap, of one symbol: see `robust_direction` for all others.
    """
    n = len(up)
    if not n:
        return None
    px, py = float(said.mean()), float(up.mean())
    hit = float((said == up).mean())
    expected = px * py + (1 - px) * (1 - py)
    var_hit = expected * (1 - expected) / n
    var_expected = (
        (2 * py - 1) ** 2 * px * (1 - px) / n
        + (2 * px - 1) ** 2 * py * (1 - py) / n
        + 4 * px * py * (1 - px) * (1 - py) / n**2
    )
    # With one constant direction both variances are the same number.
    variance = var_hit - var_expected
    if px in (0.0, 1.0) or py in (0.0, 1.0) or variance <= 1e-15:
        return DirectionTest(n, hit, expected, None, None)
    return _tested(n, hit, expected, math.sqrt(variance))


def robust_direction(
    said: Bools,
    up: Bools,
    date: Ints,
    horizon: int,
    *,
    symbol: Ints | None = None,
    lag: int | None = None,
) -> DirectionTest | None:
    """The same question for overlapping targets and shares that move together.

    Accuracy minus its expectation is exactly twice the covariance of the two directions,
    ``P - P* = 2 Cov(said, up)``. So it is the mean of ``z = 2 (said - mean) (up - mean)``, whose
    standard error is Newey and West's over the sums of z by date: rows of a date count as one
    observation, neighbouring dates as correlated up to ``lag``. On independent rows of one symbol
    with lag 0 it is, up to terms of 1 / n, the classic statistic.

    Args:
        said, up: ``[N]``. date: ``[N]``, sorts in time. horizon: H sessions of a target.
        symbol: ``[N]``; means are then each symbol's own, so that "bank shares rise more often"
            is no skill, and ``expected`` is the average over symbols. None: common means.
        lag: None for `vnquant.evaluation.overlap.overlap_lag`.
    """
    n = len(up)
    if not n:
        return None
    group = np.zeros(n, dtype=np.int64)
    if symbol is not None:
        _, group = np.unique(symbol, return_inverse=True)
    count = np.bincount(group)
    x, y = said.astype(np.float64), up.astype(np.float64)
    mean_x, mean_y = (np.bincount(group, weights=v) / count for v in (x, y))
    z = 2 * (x - mean_x[group]) * (y - mean_y[group])
    chance = mean_x * mean_y + (1 - mean_x) * (1 - mean_y)
    expected, hit = float((chance * count).sum() / n), float((said == up).mean())
    _, day = np.unique(date, return_inverse=True)
    dates = int(day.max()) + 1
    gap = float(z.mean())
    # What a date's rows add to the mean beyond their share of it: the mean's influence function.
    pull = np.bincount(day, weights=z - gap) * dates / n
    se = newey_west_se(pull, overlap_lag(dates, horizon) if lag is None else lag)
    if se is None or se <= 1e-12:
        return DirectionTest(n, hit, expected, None, None)
    return _tested(n, hit, expected, se)


def _tested(n: int, hit: float, expected: float, se: float) -> DirectionTest:
    statistic = (hit - expected) / se
    return DirectionTest(n, hit, expected, statistic, NormalDist().cdf(-statistic))
