"""Whether stated probabilities and volatilities are true to what happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 10
Z80 = 1.2815515655446004
"""A Gaussian lies within ± this many deviations with probability 80 %."""


def _bins(p: Floats) -> npt.NDArray[np.int64]:
    """The bin of every row: `BINS` of equal count, but equal probabilities always share one."""
    edges = np.unique(np.quantile(p, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    return np.searchsorted(edges, p, side="left")


def reliability(p: Floats, up: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The reliability table: for each bin n, low and high (of p), stated (its mean), observed.

    At most `BINS` bins of equal count, in rising order; a forecaster that always says the same has
    one. Empty without rows.
    """
    if len(p) == 0:
        return []
    bins = _bins(p)
    table = []
    for inside in (bins == b for b in np.unique(bins)):
        q = p[inside]
        table.append(
            {
                "n": len(q),
                "low": float(q.min()),
                "high": float(q.max()),
                "stated": float(q.mean()),
                "observed": float(up[inside].mean()),
            }
        )
    return table


def expected_calibration_error(p: Floats, up: npt.NDArray[np.bool_]) -> float | None:
    """Mean distance of stated and observed frequency over the bins of `reliability`.

    None without rows.
    """
    if len(p) == 0:
        return None
    gap = np.bincount(_bins(p), weights=p - up)
    return float(np.abs(gap).sum() / len(p))


def brier_score(p: Floats, up: npt.NDArray[np.bool_]) -> float | None:
    """Mean squared distance of probability and outcome; 0.25 is a constant 50 %."""
    return float(np.mean((p - up) ** 2)) if len(p) else None


def coverage_80(mean: Floats, deviation: Floats, realised: Floats) -> float | None:
    """Share of realised H-session sums inside the central 80 % Gaussian interval."""
    if len(mean) == 0:
        return None
    return float(np.mean(np.abs(realised - mean) <= Z80 * deviation))
