"""Correlation of forecast and outcome inside groups: over the symbols of a date, or over dates."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

MIN_CROSS_SECTION = 5
"""A date needs this many symbols for a cross-sectional correlation."""


def standardised(
    columns: Iterable[Floats], group: npt.NDArray[np.int64], ranked: bool
) -> list[Floats]:
    """Each column with mean 0 and deviation 1 inside its group; NaN where it does not vary."""
    result = []
    count = np.maximum(np.bincount(group), 1) if len(group) else np.ones(1)
    for column in columns:
        values = pd.Series(column).groupby(group).rank().to_numpy() if ranked else column
        centred = values - (np.bincount(group, weights=values) / count)[group]
        deviation = np.sqrt(np.bincount(group, weights=centred**2) / count)
        scale = np.sqrt(np.bincount(group, weights=values**2) / count)
        # What is left of a constant after subtracting its mean is rounding, not variation.
        deviation[deviation <= 1e-12 * scale] = np.nan
        result.append(centred / deviation[group])
    return result


def correlation_series(
    forecast: Floats, realised: Floats, date: npt.NDArray[np.int64], *, ranked: bool
) -> Floats:
    """Cross-sectional correlation of every date in rising order, ``[D]``: IC, or ranked RankIC.

    NaN for dates with fewer than `MIN_CROSS_SECTION` symbols or without variation.

    Args:
        forecast, realised: ``[N]``. date: ``[N]``, anything that sorts in time.
    """
    _, day = np.unique(date, return_inverse=True)
    n = np.bincount(day)
    f, y = standardised((forecast, realised), day, ranked)
    series = np.bincount(day, weights=f * y) / n
    return np.where(n >= MIN_CROSS_SECTION, series, np.nan)
