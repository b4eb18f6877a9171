"""Building blocks of the catalogue: causal, scale-free functions of one segment's bars.

Each takes `Bars` and returns float64 ``[n]``, NaN during its warm-up. TA-Lib computes the classic
indicators; everything with a price unit is divided by the price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import talib

Array = npt.NDArray[np.float64]

TINY = 1e-12


@dataclass(frozen=True)
class Bars:
    """Adjusted prices and volume of one segment, each float64 ``[n]``."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array

    @property
    def typical(self) -> Array:
        return (self.high + self.low + self.close) / 3.0


def ratio(top: Array, bottom: Array, empty: float = 0.0) -> Array:
    """``top / bottom``, and ``empty`` where bottom is next to nothing (a bar without a range)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out = top / bottom
    small = np.abs(bottom) <= TINY * np.maximum(np.abs(top), 1.0)
    return np.where(small & ~np.isnan(top) & ~np.isnan(bottom), empty, out)


def lag(x: Array, n: int) -> Array:
    """``x`` as it was n sessions before."""
    out = np.full_like(x, np.nan)
    if n < len(x):
        out[n:] = x[:-n]
    return out


def log_return(x: Array, n: int) -> Array:
    return np.log(x / lag(x, n))


def mean(x: Array, n: int) -> Array:
    """Rolling mean; like all rolling statistics here NaN until n values are there."""
    return _rolling(x, n).mean(axis=1) if len(x) >= n else np.full_like(x, np.nan)


def _rolling(x: Array, n: int) -> Array:
    """``[len(x), n]`` trailing windows; rows before the first whole one are NaN.

    Explicit windows instead of running sums: a running sum carries rounding from far back, and a
    recomputation from a shorter history would not give the same bits.
    """
    padded = np.concatenate([np.full(n - 1, np.nan), x])
    return np.lib.stride_tricks.sliding_window_view(padded, n)


def std(x: Array, n: int) -> Array:
    return _rolling(x, n).std(axis=1) if len(x) >= n else np.full_like(x, np.nan)


def highest(x: Array, n: int) -> Array:
    return _rolling(x, n).max(axis=1) if len(x) >= n else np.full_like(x, np.nan)


def lowest(x: Array, n: int) -> Array:
    return _rolling(x, n).min(axis=1) if len(x) >= n else np.full_like(x, np.nan)


def correlation(x: Array, y: Array, n: int) -> Array:
    """Rolling Pearson correlation; 0 where either side is constant."""
    if len(x) < n:
        return np.full_like(x, np.nan)
    a, b = _rolling(x, n), _rolling(y, n)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.clip(ratio((a * b).sum(axis=1), spread), -1.0, 1.0)


def ema_gap(b: Bars, n: int) -> Array:
    """Distance of the close from its exponential mean, as a log ratio.

    The mean is over the last 3 n sessions with weights falling by 2 / (n + 1), so it forgets
    completely: a recursive mean would depend on where the history begins.
    """
    span = 3 * n
    if len(b.close) < span:
        return np.full_like(b.close, np.nan)
    weights = (1 - 2 / (n + 1)) ** np.arange(span - 1, -1, -1)
    return np.log(b.close / (_rolling(b.close, span) @ (weights / weights.sum())))


def mean_gap(b: Bars, n: int) -> Array:
    return np.log(b.close / mean(b.close, n))


def slope(b: Bars, n: int) -> Array:
    """Slope of a line through the last n log closes, per session."""
    return np.asarray(talib.LINEARREG_SLOPE(np.log(b.close), n))


def clv(b: Bars) -> Array:
    """Where the close lies in the session's range: -1 at the low, 1 at the high, 0 without range."""
    return ratio(2 * b.close - b.high - b.low, b.high - b.low)


def true_range(b: Bars) -> Array:
    """True range over the previous close."""
    previous = lag(b.close, 1)
    return np.maximum(b.high, previous) / previous - np.minimum(b.low, previous) / previous


def rsi(b: Bars, n: int) -> Array:
    """Relative strength with plain means (Cutler), -1..1; 0 without movement.

    Wilder's recursive smoothing never forgets its start; Cutler's form does after n sessions.
    """
    move = np.diff(b.close, prepend=np.nan)
    rise, fall = mean(np.maximum(move, 0), n), mean(np.maximum(-move, 0), n)
    return ratio(rise - fall, rise + fall)


def stochastic(b: Bars, n: int) -> Array:
    """Where the close lies in the n-session range, -1..1."""
    top, bottom = highest(b.high, n), lowest(b.low, n)
    return ratio(2 * b.close - top - bottom, top - bottom)


def cci(b: Bars, n: int) -> Array:
    """Commodity channel index over 100; 0 on a flat stretch."""
    out = np.asarray(talib.CCI(b.high, b.low, b.close, n)) / 100.0
    flat = highest(b.high, n) <= lowest(b.low, n) * (1 + TINY)
    return np.where(flat, 0.0, out)


def money_flow(b: Bars, n: int) -> Array:
    """Money flow index as a balance, -1..1: up-day against down-day typical price times volume."""
    flow, move = b.typical * b.volume, np.diff(b.typical, prepend=np.nan)
    gain, loss = mean(np.where(move > 0, flow, 0.0), n), mean(np.where(move < 0, flow, 0.0), n)
    out = ratio(gain - loss, gain + loss)
    out[:n] = np.nan  # the first move needs a previous bar
    return out


def chaikin(b: Bars, n: int) -> Array:
    """Chaikin money flow: close location weighted by volume."""
    return ratio(mean(clv(b) * b.volume, n), mean(b.volume, n))


def directional(b: Bars, n: int) -> Array:
    """Directional movement (DI+ - DI-) / (DI+ + DI-) with plain means, -1..1."""
    up, down = np.diff(b.high, prepend=np.nan), -np.diff(b.low, prepend=np.nan)
    plus = mean(np.where((up > down) & (up > 0), up, 0.0), n)
    minus = mean(np.where((down > up) & (down > 0), down, 0.0), n)
    out = ratio(plus - minus, plus + minus)
    out[:n] = np.nan
    return out


def efficiency(b: Bars, n: int) -> Array:
    """Kaufman's efficiency ratio with sign: net move over the path walked."""
    move = np.diff(np.log(b.close), prepend=np.nan)
    return ratio(log_return(b.close, n), mean(np.abs(move), n) * n)


def parkinson(b: Bars, n: int) -> Array:
    """Volatility from ranges (Parkinson 1980), per session."""
    return np.sqrt(mean(np.log(b.high / b.low) ** 2, n) / (4 * np.log(2)))


def garman_klass(b: Bars, n: int) -> Array:
    """Volatility from OHLC (Garman & Klass 1980), per session; 0 where rounding makes it negative."""
    bar = 0.5 * np.log(b.high / b.low) ** 2 - (2 * np.log(2) - 1) * np.log(b.close / b.open) ** 2
    return np.sqrt(np.maximum(mean(bar, n), 0.0))


def volatility(b: Bars, n: int) -> Array:
    return std(log_return(b.close, 1), n)


def skewness(b: Bars, n: int) -> Array:
    """Skewness of the last n returns; 0 without movement."""
    r = log_return(b.close, 1)
    if len(r) < n:
        return np.full_like(r, np.nan)
    w = _rolling(r, n)
    centred = w - w.mean(axis=1, keepdims=True)
    return ratio((centred**3).mean(axis=1), (centred**2).mean(axis=1) ** 1.5)


def relative_volume(b: Bars, n: int) -> Array:
    """Log of volume over its n-session mean."""
    return np.log(b.volume / mean(b.volume, n))


def volume_balance(b: Bars, n: int) -> Array:
    """On-balance volume of n sessions over their total, -1..1."""
    sign = np.sign(np.diff(b.close, prepend=np.nan))
    return ratio(mean(sign * b.volume, n), mean(b.volume, n))


def illiquidity(b: Bars, n: int) -> Array:
    """Today's |return| per traded value against its n-session mean (Amihud 2002), as log(1 + x)."""
    daily = np.abs(log_return(b.close, 1)) / (b.typical * b.volume)
    return np.log1p(ratio(daily, mean(daily, n)))
