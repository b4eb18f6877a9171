"""Whether stated probabilities and volatilities are true to what happened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 10
Z80 = 1.2815515655446004
"""A Gaussian lies within ± this many deviations with probability 80 %."""


def expected_calibration_error(p: Floats, up: npt.NDArray[np.bool_]) -> float | None:
    """Mean distance of stated and observed frequency over `BINS` bins of equal count.

    Equal probabilities always share a bin, so a forecaster that always says the same has one bin.
    None without rows.
    """
    if len(p) == 0:
        return None
    edges = np.unique(np.quantile(p, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    bins = np.searchsorted(edges, p, side="left")
    gap = np.bincount(bins, weights=p - up, minlength=len(edges) + 1)
    return float(np.abs(gap).sum() / len(p))


def brier_score(p: Floats, up: npt.NDArray[np.bool_]) -> float | None:
    """Mean squared distance of probability and outcome; 0.25 is a constant 50 %."""
    return float(np.mean((p - up) ** 2)) if len(p) else None


def coverage_80(mean: Floats, deviation: Floats, realised: Floats) -> float | None:
    """Share of realised H-session sums inside the central 80 % Gaussian interval."""
    if len(mean) == 0:
        return None
    return float(np.mean(np.abs(realised - mean) <= Z80 * deviation))
