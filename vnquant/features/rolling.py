"""Trailing windows over float64 series.

Every function returns an array as long as its input; rows without a full window are NaN. Windows
are reduced afresh each time (no running sums), so a value depends on nothing but its own window
and no rounding error is carried along a history.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Array = npt.NDArray[np.float64]


def full_windows(x: Array, n: int) -> Array:
    """All full windows as a view ``[len(x) - n + 1, n]``."""
    return sliding_window_view(x, n)


def padded(values: Array, n: int) -> Array:
    """Put ``n - 1`` NaN rows in front of the results of full windows."""
    return np.concatenate([np.full(n - 1, np.nan), values])


def total(x: Array, n: int) -> Array:
    return padded(full_windows(x, n).sum(axis=1), n)


def mean(x: Array, n: int) -> Array:
    return padded(full_windows(x, n).mean(axis=1), n)


def deviation(x: Array, n: int) -> Array:
    """Standard deviation (divisor n), two passes."""
    return padded(full_windows(x, n).std(axis=1), n)


def highest(x: Array, n: int) -> Array:
    return padded(full_windows(x, n).max(axis=1), n)


def lowest(x: Array, n: int) -> Array:
    return padded(full_windows(x, n).min(axis=1), n)


def correlation(x: Array, y: Array, n: int, tiny_x: Array, tiny_y: Array) -> Array:
    """Pearson correlation; 0 where either window's deviation is at or below its ``tiny``."""
    wx, wy = full_windows(x, n), full_windows(y, n)
    dx = wx - wx.mean(axis=1, keepdims=True)
    dy = wy - wy.mean(axis=1, keepdims=True)
    sx, sy = np.sqrt((dx * dx).mean(axis=1)), np.sqrt((dy * dy).mean(axis=1))
    still = (sx <= tiny_x[n - 1 :]) | (sy <= tiny_y[n - 1 :])
    scale = np.where(still, 1.0, sx * sy)
    found = np.clip((dx * dy).mean(axis=1) / scale, -1.0, 1.0)
    return padded(np.where(still, 0.0, found), n)


def ago(x: Array, n: int) -> Array:
    """The value ``n`` sessions earlier."""
    return np.concatenate([np.full(min(n, len(x)), np.nan), x[:-n]])


def guarded(top: Array, bottom: Array, tiny: Array | float, neutral: float) -> Array:
    """``top / bottom``, or ``neutral`` where ``|bottom|`` is at or below ``tiny``."""
    small = np.abs(bottom) <= tiny
    return np.where(small, neutral, top / np.where(small, 1.0, bottom))


def log_ratio(top: Array, bottom: Array, limit: float) -> Array:
    """``log(top / bottom)`` within ``±limit``; 0 where bottom is 0, ``-limit`` where top is 0."""
    ratio = guarded(top, bottom, 0.0, 1.0)
    return np.log(np.clip(ratio, np.exp(-limit), np.exp(limit)))
