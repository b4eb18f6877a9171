"""Means of series that overlap: the lag to look back, the t-test, IC and RankIC by date."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from vnquant.errors import UsageError
from vnquant.evaluation.correlation import correlation_series
from vnquant.evaluation.intervals import newey_west_se

Floats = npt.NDArray[np.float64]


def overlap_lag(n: int, horizon: int) -> int:
    """``max(2 (H - 1), floor(4 (n / 100) ** (2 / 9)))``: the lag for H-session targets.

    Neighbouring H-session sums are correlated up to lag H - 1. Bartlett's weights shrink just
    these correlations: with lag H - 1 = 4 and a forecast that hardly moves, the variance comes out
    at 68 % of the truth, with 8 at 82 %. The second term is Newey and West's rule (1994) for
    persistence that the horizon does not explain.
    """
    plug_in = math.floor(4 * math.pow(n / 100, 2 / 9))
    return max(2 * (horizon - 1), plug_in)


def two_sided(statistic: float) -> float:
    """P(|Z| >= |statistic|) of a standard Gaussian."""
    return 2 * NormalDist().cdf(-abs(statistic))


@dataclass(frozen=True)
class MeanTest:
    """A mean against 0: ``n`` dates, standard error (Newey-West), t value, two-sided p-value.

    None where undefined: too few dates, or no variation at all.
    """

    n: int
    mean: float | None
    se: float | None
    t: float | None
    p_value: float | None
    lag: int


def mean_test(series: Floats, horizon: int, *, lag: int | None = None) -> MeanTest:
    """Whether the mean of a series in time order differs from 0; NaN entries are left out.

    Gaussian p-values: for fewer than some 100 dates they are too small (a tenth instead of a
    twentieth at 60 dates and H = 5).

    Args:
        horizon: H sessions of the targets behind each entry.
        lag: None for `overlap_lag`.

    Raises:
        UsageError: a lag below H - 1, which ignores known overlap.
    """
    if lag is not None and lag < horizon - 1:
        raise UsageError(
            f"{lag} ignores the overlap of {horizon}-session targets",
            where="lag",
            fix=f"use {horizon - 1} or more",
        )
    x = series[np.isfinite(series)]
    chosen = overlap_lag(len(x), horizon) if lag is None else lag
    if not len(x):
        return MeanTest(0, None, None, None, None, chosen)
    mean, se = float(x.mean()), newey_west_se(x, chosen)
    if not se or se <= 1e-15 * float(np.abs(x).max()):
        return MeanTest(len(x), mean, se, None, None, chosen)
    return MeanTest(len(x), mean, se, mean / se, two_sided(mean / se), chosen)


def information(
    forecast: Floats, realised: Floats, date: npt.NDArray[np.int64], horizon: int
) -> dict[str, MeanTest]:
    """`mean_test` of the IC and RankIC series: ``{"ic": ..., "rank_ic": ...}``."""
    return {
        name: mean_test(correlation_series(forecast, realised, date, ranked=ranked), horizon)
        for name, ranked in (("ic", False), ("rank_ic", True))
    }
