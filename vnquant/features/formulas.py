"""The formulas behind the catalogue, on one segment's bars.

Two habits keep every formula scale-free and finite on bars that did not move (limit-locked, or
nothing but one price all day): a denominator is compared with a small fraction of the price
instead of with zero, and each ratio names the neutral value that it takes then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import talib

from vnquant.features import rolling
from vnquant.features.rolling import Array, ago, guarded

Formula = Callable[["Bars"], Array]

TINY = 1e-8
"""Fraction of the price below which a difference is rounding; a tick is never below 1e-5."""

VOLUME_LIMIT = 5.0
"""Log ratios of volumes are kept within ±5: a session without any trade would be -infinity."""

BETA_LIMIT = 5.0
"""No share follows the index more than that for long; a quiet index would magnify rounding."""


@dataclass(frozen=True)
class Bars:
    """One segment's bars, float64 ``[n]`` each: adjusted prices relative to the segment's first
    close, volume, and for features of the market the index's level at the end of each session (NaN
    where it is not known). See `vnquant.features.indicators.segment_bars`."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    index: Array | None = None

    @cached_property
    def typical(self) -> Array:
        return (self.high + self.low + self.close) / 3.0

    @cached_property
    def value(self) -> Array:
        """Turnover as typical price times volume: the published value is 0, missing or in odd
        units on some sessions."""
        return self.typical * self.volume

    @cached_property
    def tiny(self) -> Array:
        return TINY * self.close

    @cached_property
    def spread(self) -> Array:
        return self.high - self.low

    @cached_property
    def log_close(self) -> Array:
        return np.log(self.close)

    @cached_property
    def return_1(self) -> Array:
        return self.log_close - ago(self.log_close, 1)

    @cached_property
    def log_index(self) -> Array:
        assert self.index is not None
        return np.log(self.index)

    @cached_property
    def index_return_1(self) -> Array:
        return self.log_index - ago(self.log_index, 1)

    @cached_property
    def close_location(self) -> Array:
        balance = 2.0 * self.close - self.high - self.low
        return guarded(balance, self.spread, self.tiny, 0.0)


def direction(x: Array) -> Array:
    """-1, 0 or 1 for the step from the session before; a step within rounding is 0."""
    step = x / ago(x, 1) - 1.0
    return np.where(np.abs(step) <= TINY, 0.0, np.sign(step))


def log_return(n: int) -> Formula:
    return lambda b: b.log_close - ago(b.log_close, n)


def gap(b: Bars) -> Array:
    return np.log(b.open / ago(b.close, 1))


def body(b: Bars) -> Array:
    return guarded(b.close - b.open, b.spread, b.tiny, 0.0)


def upper_shadow(b: Bars) -> Array:
    return guarded(b.high - np.maximum(b.open, b.close), b.spread, b.tiny, 0.0)


def lower_shadow(b: Bars) -> Array:
    return guarded(np.minimum(b.open, b.close) - b.low, b.spread, b.tiny, 0.0)


def close_location(b: Bars) -> Array:
    return b.close_location


def close_location_mean(b: Bars) -> Array:
    return rolling.mean(b.close_location, 5)


def day_range(b: Bars) -> Array:
    return np.log(b.high / b.low)


def above_mean(n: int) -> Formula:
    return lambda b: np.log(b.close / rolling.mean(b.close, n))


def above_ema(n: int) -> Formula:
    return lambda b: np.log(b.close / talib.EMA(b.close, n))


def macd(b: Bars) -> Array:
    return talib.MACD(b.close, 12, 26, 9)[0] / b.close


def macd_histogram(b: Bars) -> Array:
    return talib.MACD(b.close, 12, 26, 9)[2] / b.close


def adx(b: Bars) -> Array:
    return talib.ADX(b.high, b.low, b.close, 14) / 100.0


def directional_balance(b: Bars) -> Array:
    prices = (b.high, b.low, b.close)
    return (talib.PLUS_DI(*prices, 14) - talib.MINUS_DI(*prices, 14)) / 100.0


def aroon(b: Bars) -> Array:
    return talib.AROONOSC(b.high, b.low, 25) / 100.0


def slope(n: int) -> Formula:
    return lambda b: talib.LINEARREG_SLOPE(b.log_close, n)


def below_high(n: int) -> Formula:
    return lambda b: np.log(b.close / rolling.highest(b.high, n))


def above_low(n: int) -> Formula:
    return lambda b: np.log(b.close / rolling.lowest(b.low, n))


def rsi(n: int) -> Formula:
    # CMO is RSI on the scale -100..100, but neutral where nothing moved: TA-Lib's RSI says 0.
    return lambda b: talib.CMO(b.close, n) / 100.0


def place_in_range(b: Bars, n: int) -> Array:
    low = rolling.lowest(b.low, n)
    return guarded(b.close - low, rolling.highest(b.high, n) - low, b.tiny, 0.5)


def stochastic_k(b: Bars) -> Array:
    return 2.0 * rolling.mean(place_in_range(b, 14), 3) - 1.0


def stochastic_d(b: Bars) -> Array:
    return rolling.mean(stochastic_k(b), 3)


def williams(n: int) -> Formula:
    return lambda b: place_in_range(b, n) - 1.0


def cci(b: Bars) -> Array:
    windows = rolling.full_windows(b.typical, 20)
    centre = windows.mean(axis=1)
    spread = np.abs(windows - centre[:, None]).mean(axis=1)
    off = b.typical[19:] - centre
    return rolling.padded(guarded(off, 1.5 * spread, b.tiny[19:], 0.0), 20)


def mfi(b: Bars) -> Array:
    signed = direction(b.typical) * b.value
    return guarded(rolling.total(signed, 14), rolling.total(np.abs(signed), 14), 0.0, 0.0)


def ultimate(b: Bars) -> Array:
    before = ago(b.close, 1)
    low = np.minimum(b.low, before)
    bought, true_range = b.close - low, np.maximum(b.high, before) - low

    def pressure(n: int) -> Array:
        return guarded(rolling.total(bought, n), rolling.total(true_range, n), b.tiny, 0.5)

    return (4.0 * pressure(7) + 2.0 * pressure(14) + pressure(28)) * (2.0 / 7.0) - 1.0


def trix(n: int) -> Formula:
    return lambda b: talib.TRIX(b.close, n) / 100.0


def atr(b: Bars) -> Array:
    return talib.ATR(b.high, b.low, b.close, 14) / b.close


def parkinson(n: int) -> Formula:
    return lambda b: np.sqrt(rolling.mean(day_range(b) ** 2, n) / (4.0 * np.log(2.0)))


def garman_klass(b: Bars) -> Array:
    daily = 0.5 * day_range(b) ** 2 - (2.0 * np.log(2.0) - 1.0) * np.log(b.close / b.open) ** 2
    return np.sqrt(np.maximum(rolling.mean(daily, 20), 0.0))


def return_deviation(n: int) -> Formula:
    return lambda b: rolling.deviation(b.return_1, n)


def bollinger_position(b: Bars) -> Array:
    off = b.close - rolling.mean(b.close, 20)
    return guarded(off, 2.0 * rolling.deviation(b.close, 20), b.tiny, 0.0)


def bollinger_width(b: Bars) -> Array:
    return 4.0 * rolling.deviation(b.close, 20) / rolling.mean(b.close, 20)


def volume_above_mean(n: int) -> Formula:
    return lambda b: rolling.log_ratio(b.volume, rolling.mean(b.volume, n), VOLUME_LIMIT)


def obv_change(b: Bars) -> Array:
    signed = rolling.total(direction(b.close) * b.volume, 20)
    return guarded(signed, rolling.total(b.volume, 20), 0.0, 0.0)


def money_flow(b: Bars) -> Array:
    flow = rolling.total(b.close_location * b.volume, 20)
    return guarded(flow, rolling.total(b.volume, 20), 0.0, 0.0)


def volume_return(b: Bars) -> Array:
    tiny_volume = TINY * rolling.mean(b.volume, 20)
    return rolling.correlation(b.return_1, b.volume, 20, np.full_like(b.close, TINY), tiny_volume)


def turnover(b: Bars) -> Array:
    return rolling.log_ratio(rolling.mean(b.value, 5), rolling.mean(b.value, 60), VOLUME_LIMIT)


def market_return(n: int) -> Formula:
    return lambda b: b.log_index - ago(b.log_index, n)


def market_above_mean(n: int) -> Formula:
    return lambda b: b.log_index - np.log(rolling.mean(np.exp(b.log_index), n))


def market_deviation(n: int) -> Formula:
    return lambda b: rolling.deviation(b.index_return_1, n)


def relative(n: int) -> Formula:
    return lambda b: log_return(n)(b) - market_return(n)(b)


def _co_movement(b: Bars, n: int) -> tuple[Array, Array, Array]:
    """Deviations of return_1 and of the index's, and their correlation, of n sessions."""
    own, market = b.return_1, b.index_return_1
    tiny = np.full_like(own, TINY)
    together = rolling.correlation(own, market, n, tiny, tiny)
    return rolling.deviation(own, n), rolling.deviation(market, n), together


def beta(n: int) -> Formula:
    def slope_on_market(b: Bars) -> Array:
        own, market, together = _co_movement(b, n)
        return np.clip(guarded(together * own, market, TINY, 0.0), -BETA_LIMIT, BETA_LIMIT)

    return slope_on_market


def residual_deviation(n: int) -> Formula:
    def left_over(b: Bars) -> Array:
        own, _, together = _co_movement(b, n)
        return own * np.sqrt(np.maximum(1.0 - together**2, 0.0))

    return left_over
