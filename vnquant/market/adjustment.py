"""Adjusted prices from ratios alone.

A published adj_close was computed with knowledge of every corporate action up to the day it was
downloaded, so its level leaks the future; the ratio between two days does not, except by rounding.
So the level is thrown away: the series is rebuilt forwards from its first bar. Appending bars, or
a corporate action that rescales all earlier adj_close, changes nothing that was there before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ROUNDING = 0.005
"""Half the last printed digit of adj_close, thousand VND."""


def daily_ratio(close: Array, adj_close: Array, first: npt.NDArray[np.bool_]) -> Array:
    """Adjusted close relative to the bar before it, ``[N]``; 1 on the first bar of a symbol.

    Where close and adj_close moved alike within the rounding of adj_close, nothing was paid out
    and the ratio of the raw closes is exact; adj_close of 0.9 printed with two decimals moves in
    steps of one per cent.
    """
    previous, adj_previous = np.roll(close, 1), np.roll(adj_close, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = close / previous
        adjusted = adj_close / adj_previous
        slack = ROUNDING / adj_close + ROUNDING / adj_previous
        alike = np.abs(adjusted / raw - 1.0) <= slack * 1.01 + 1e-12
    return np.where(first, 1.0, np.where(alike, raw, adjusted))


def rebuild(close: Array, ratio: Array, first: npt.NDArray[np.bool_]) -> Array:
    """Adjusted close ``[N]`` that starts at each symbol's first raw close and follows the ratios."""
    out = np.empty_like(close)
    begins = np.flatnonzero(first)
    for begin, end in zip(begins, np.append(begins[1:], len(close)), strict=True):
        out[begin:end] = close[begin] * np.cumprod(ratio[begin:end])
    return out
