"""Whether stated probabilities and volatilities are true to what happened."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 10
Z80 = 1.2815515655446004
"""A Gaussian lies within ± this many deviations with probability 80 %."""
Z95 = 1.959963984540054


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
        table.append(_row(p[inside], up[inside]))
    return table


def _row(p: Floats, up: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """One bin of a reliability table."""
    return {
        "n": len(p),
        "low": float(p.min()),
        "high": float(p.max()),
        "stated": float(p.mean()),
        "observed": float(up.mean()),
    }


def expected_calibration_error(p: Floats, up: npt.NDArray[np.bool_]) -> float | None:
    """Mean distance of stated and observed frequency over the bins of `reliability`.

    None without rows.
    """
    if len(p) == 0:
        return None
    return _binned_error(_bins(p), p, up)


def _binned_error(bins: npt.NDArray[np.int64], p: Floats, up: npt.NDArray[np.bool_]) -> float:
    gap = np.bincount(bins, weights=p - up)
    return float(np.abs(gap).sum() / len(p))


def brier_score(p: Floats, up: npt.NDArray[np.bool_]) -> float | None:
    """Mean squared distance of probability and outcome; 0.25 is a constant 50 %."""
    return float(np.mean((p - up) ** 2)) if len(p) else None


def coverage_80(mean: Floats, deviation: Floats, realised: Floats) -> float | None:
    """Share of realised H-session sums inside the central 80 % Gaussian interval."""
    if len(mean) == 0:
        return None
    return float(np.mean(np.abs(realised - mean) <= Z80 * deviation))


def reliability_by_width(
    p: Floats, up: npt.NDArray[np.bool_], bins: int = BINS, level_z: float = Z95
) -> list[dict[str, Any]]:
    """The same table over ``bins`` equal parts of 0 to 1, empty ones left out, with an interval.

    Fields of `reliability`, and ``gap`` (observed minus stated), ``observed_low`` and
    ``observed_high`` (Wilson's interval; for independent rows, so too narrow where shares move
    together or windows overlap).
    """
    part = np.minimum((p * bins).astype(np.int64), bins - 1)
    table = []
    for inside in (part == b for b in np.unique(part)):
        row = _row(p[inside], up[inside])
        low, high = wilson(row["observed"], row["n"], level_z)
        gap = row["observed"] - row["stated"]
        table.append(row | {"gap": gap, "observed_low": low, "observed_high": high})
    return table


def wilson(share: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of n independent rows."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def maximum_calibration_error(p: Floats, up: npt.NDArray[np.bool_]) -> float | None:
    """Largest distance of stated and observed frequency over the bins of `reliability`."""
    gaps = [abs(row["observed"] - row["stated"]) for row in reliability(p, up)]
    return max(gaps) if gaps else None


def brier_parts(p: Floats, up: npt.NDArray[np.bool_]) -> dict[str, float] | None:
    """Murphy's parts (1973) over the bins of `reliability`; None without rows.

    ``score = reliability - resolution + uncertainty + within``: distance from calibration (small is
    good), how far the bins' outcomes lie apart (large is good), the variance of the outcome, and
    what the spread of probabilities inside bins adds.
    """
    score = brier_score(p, up)
    if score is None:
        return None
    bins = reliability(p, up)
    n = np.array([row["n"] for row in bins]) / len(p)
    stated, seen = (np.array([row[k] for row in bins]) for k in ("stated", "observed"))
    base = float(up.mean())
    parts = {
        "score": score,
        "reliability": float(n @ (stated - seen) ** 2),
        "resolution": float(n @ (seen - base) ** 2),
        "uncertainty": base * (1 - base),
    }
    rest = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    return parts | {"within": parts["score"] - rest}


def calibration_p_value(
    p: Floats, up: npt.NDArray[np.bool_], *, samples: int = 1000, seed: int = 0
) -> float | None:
    """How often a truly calibrated forecaster of the same probabilities shows as large an error.

    The error of a finite sample is never 0; this says what it is worth. Outcomes are drawn
    independently, so on dependent rows (overlap, one market) the p-value is too small: thin the
    dates to every H-th first. None without rows.
    """
    seen = expected_calibration_error(p, up)
    if seen is None:
        return None
    generator = np.random.Generator(np.random.Philox(seed))
    bins = _bins(p)
    reached = 0
    for _ in range(samples):
        reached += _binned_error(bins, p, generator.random(len(p)) < p) >= seen - 1e-12
    return (reached + 1) / (samples + 1)
