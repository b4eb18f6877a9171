"""Adjusted prices from ratios alone, and the evidence for whether a step between bars is sound.

A published adj_close was computed with knowledge of every corporate action up to the day it was
downloaded, so its level leaks the future; the ratio between two days does not, except by rounding.
So the level is thrown away: the series is rebuilt forwards from its first bar. Appending bars, or
a corporate action that rescales all earlier adj_close, changes nothing that was there before.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ROUNDING = 0.005
"""Half the last printed digit of adj_close, thousand VND."""

REVERTED = 0.02
"""Smallest step of adj_close / close that counts as applied on one day and taken back the next."""


def rounding_slack(adj_close: Array, adj_previous: Array) -> Array:
    """Largest relative error that rounding to two decimals puts on adj_close / adj_previous."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slack: Array = 1.01 * (ROUNDING / adj_close + ROUNDING / adj_previous) + 1e-12
    return slack


def factor_step(close: Array, adj_close: Array, first: Mask) -> Array:
    """Step of adj_close / close from the bar before, ``[N]``: above 1 on an ex-date, else 1.

    1 on a symbol's first bar and wherever close and adj_close moved alike within the rounding of
    adj_close: nothing was paid out then, and an adj_close of 0.9 printed with two decimals would
    move in steps of one per cent.
    """
    previous, adj_previous = np.roll(close, 1), np.roll(adj_close, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (adj_close / adj_previous) / (close / previous)
        alike = np.abs(step - 1.0) <= rounding_slack(adj_close, adj_previous)
    return np.where(first | alike, 1.0, step)


def daily_ratio(close: Array, adj_close: Array, first: Mask) -> Array:
    """Adjusted close relative to the bar before it, ``[N]``; 1 on the first bar of a symbol."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = close / np.roll(close, 1) * factor_step(close, adj_close, first)
    return np.where(first, 1.0, ratio)


def rebuild(close: Array, ratio: Array, first: Mask) -> Array:
    """Adjusted close ``[N]``: each symbol's first raw close, then along the ratios."""
    out = np.empty_like(close)
    edges = np.append(np.flatnonzero(first), len(close))
    for begin, end in pairwise(edges):
        out[begin:end] = close[begin] * np.cumprod(ratio[begin:end])
    return out


def taken_back(factor: Array, first: Mask) -> Mask:
    """Bars that undo the adjustment of the bar before them, ``[N]``.

    The adjustment was applied for one bar only. Nobody could know that before the close of the
    bar marked here: the bar before is not marked.

    Args:
        factor: from `factor_step`, ``[N]``.
    """
    before = np.where(first, 1.0, np.roll(factor, 1))
    moved = np.abs(before - 1.0) > REVERTED
    undone: Mask = ~first & moved & (np.abs(before * factor - 1.0) < 0.5 * np.abs(before - 1.0))
    return undone


def official_change(change_text: pd.Series) -> Array:
    """The leading number of texts like ``-0.5(-1.39 %)``, thousand VND; NaN where there is none."""
    number = change_text.astype("string").str.extract(r"^\s*([-+]?\d*\.?\d+)", expand=False)
    return number.to_numpy(dtype=np.float64, na_value=np.nan)
