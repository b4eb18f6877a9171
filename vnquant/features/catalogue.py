"""The 50 features of set v1: name, group, formula in words, warm-up. The one list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import talib

from vnquant.features import indicators as ind
from vnquant.features.indicators import Array, Bars

Group = Literal["return", "candle", "trend", "oscillator", "volatility", "volume"]


@dataclass(frozen=True)
class Feature:
    """One feature. ``warm_up`` is how many leading sessions of a segment have no value."""

    name: str
    group: Group
    formula: str
    warm_up: int
    compute: Callable[[Bars], Array]


def _returns() -> list[Feature]:
    return [
        Feature(
            f"return_{n}", "return", f"log of close over the close {n} sessions before", n,
            lambda b, n=n: ind.log_return(b.close, n),  # type: ignore[misc]
        )
        for n in (1, 2, 3, 5, 10, 20, 40, 60)
    ]  # fmt: skip


FEATURES: tuple[Feature, ...] = (
    *_returns(),
    Feature("overnight", "candle", "log of open over the previous close", 1, lambda b: np.log(b.open / ind.lag(b.close, 1))),
    Feature("intraday", "candle", "log of close over open", 0, lambda b: np.log(b.close / b.open)),
    Feature("range", "candle", "log of high over low", 0, lambda b: np.log(b.high / b.low)),
    Feature("close_location", "candle", "close within the session's range, -1 at the low to 1 at the high", 0, ind.clv),
    Feature("upper_shadow", "candle", "high above the body, as a share of the range", 0, lambda b: ind.ratio(b.high - np.maximum(b.open, b.close), b.high - b.low)),
    Feature("lower_shadow", "candle", "body above the low, as a share of the range", 0, lambda b: ind.ratio(np.minimum(b.open, b.close) - b.low, b.high - b.low)),
    Feature("close_location_5", "candle", "mean of close_location over 5 sessions", 4, lambda b: ind.mean(ind.clv(b), 5)),
    Feature("close_location_20", "candle", "mean of close_location over 20 sessions", 19, lambda b: ind.mean(ind.clv(b), 20)),
    Feature("mean_gap_10", "trend", "log of close over its 10-session mean", 9, lambda b: ind.mean_gap(b, 10)),
    Feature("mean_gap_20", "trend", "log of close over its 20-session mean", 19, lambda b: ind.mean_gap(b, 20)),
    Feature("mean_gap_60", "trend", "log of close over its 60-session mean", 59, lambda b: ind.mean_gap(b, 60)),
    Feature("ema_gap_5", "trend", "log of close over its exponential mean of span 5 (last 15 sessions)", 14, lambda b: ind.ema_gap(b, 5)),
    Feature("ema_gap_20", "trend", "log of close over its exponential mean of span 20 (last 60 sessions)", 59, lambda b: ind.ema_gap(b, 20)),
    Feature("macd", "trend", "exponential mean of span 8 over that of span 20, log ratio", 59, lambda b: ind.ema_gap(b, 20) - ind.ema_gap(b, 8)),
    Feature("slope_10", "trend", "slope of a line through the last 10 log closes", 9, lambda b: ind.slope(b, 10)),
    Feature("slope_20", "trend", "slope of a line through the last 20 log closes", 19, lambda b: ind.slope(b, 20)),
    Feature("slope_60", "trend", "slope of a line through the last 60 log closes", 59, lambda b: ind.slope(b, 60)),
    Feature("directional_14", "trend", "(DI+ - DI-) / (DI+ + DI-) over 14 sessions, plain means", 14, lambda b: ind.directional(b, 14)),
    Feature("aroon_25", "trend", "Aroon oscillator of 25 sessions over 100", 25, lambda b: np.asarray(talib.AROONOSC(b.high, b.low, 25)) / 100),
    Feature("efficiency_10", "trend", "net move over the path walked in 10 sessions, signed", 10, lambda b: ind.efficiency(b, 10)),
    Feature("rsi_7", "oscillator", "relative strength of 7 sessions, -1 to 1, plain means", 7, lambda b: ind.rsi(b, 7)),
    Feature("rsi_14", "oscillator", "relative strength of 14 sessions, -1 to 1, plain means", 14, lambda b: ind.rsi(b, 14)),
    Feature("stochastic_14", "oscillator", "close within the 14-session range, -1 to 1", 13, lambda b: ind.stochastic(b, 14)),
    Feature("stochastic_60", "oscillator", "close within the 60-session range, -1 to 1", 59, lambda b: ind.stochastic(b, 60)),
    Feature("cci_20", "oscillator", "commodity channel index of 20 sessions over 100", 19, lambda b: ind.cci(b, 20)),
    Feature("money_flow_14", "oscillator", "up-day against down-day money over 14 sessions, -1 to 1", 14, lambda b: ind.money_flow(b, 14)),
    Feature("bollinger_20", "oscillator", "close above its 20-session mean in standard deviations", 19, lambda b: ind.ratio(b.close - ind.mean(b.close, 20), ind.std(b.close, 20))),
    Feature("volatility_5", "volatility", "standard deviation of 5 daily returns", 5, lambda b: ind.volatility(b, 5)),
    Feature("volatility_20", "volatility", "standard deviation of 20 daily returns", 20, lambda b: ind.volatility(b, 20)),
    Feature("volatility_60", "volatility", "standard deviation of 60 daily returns", 60, lambda b: ind.volatility(b, 60)),
    Feature("volatility_ratio", "volatility", "volatility_5 over volatility_60", 60, lambda b: ind.ratio(ind.volatility(b, 5), ind.volatility(b, 60))),
    Feature("parkinson_20", "volatility", "range volatility of 20 sessions (Parkinson)", 19, lambda b: ind.parkinson(b, 20)),
    Feature("garman_klass_20", "volatility", "open-high-low-close volatility of 20 sessions (Garman-Klass)", 19, lambda b: ind.garman_klass(b, 20)),
    Feature("true_range_14", "volatility", "mean true range of 14 sessions over the previous close", 14, lambda b: ind.mean(ind.true_range(b), 14)),
    Feature("skewness_20", "volatility", "skewness of 20 daily returns", 20, lambda b: ind.skewness(b, 20)),
    Feature("volume_5", "volume", "log of volume over its 5-session mean", 4, lambda b: ind.relative_volume(b, 5)),
    Feature("volume_20", "volume", "log of volume over its 20-session mean", 19, lambda b: ind.relative_volume(b, 20)),
    Feature("volume_trend", "volume", "log of the 5-session over the 60-session mean volume", 59, lambda b: np.log(ind.mean(b.volume, 5) / ind.mean(b.volume, 60))),
    Feature("volume_balance_20", "volume", "on-balance volume of 20 sessions over their total", 20, lambda b: ind.volume_balance(b, 20)),
    Feature("chaikin_20", "volume", "close_location weighted by volume over 20 sessions", 19, lambda b: ind.chaikin(b, 20)),
    Feature("volume_return_20", "volume", "correlation of log volume and daily return over 20 sessions", 20, lambda b: ind.correlation(np.log(b.volume), ind.log_return(b.close, 1), 20)),
    Feature("illiquidity_20", "volume", "log of 1 + |return| per traded value over its 20-session mean", 20, lambda b: ind.illiquidity(b, 20)),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(f.name for f in FEATURES)
WARM_UP: int = max(f.warm_up for f in FEATURES)


def compute(bars: pd.DataFrame) -> np.ndarray:
    """All features of one segment: float32 ``[n, 50]``, NaN during each one's warm-up.

    Args:
        bars: one segment's clean bars with adj_open, adj_high, adj_low, adj_close and volume (> 0).
    """
    b = Bars(
        *(bars[f"adj_{k}"].to_numpy(np.float64) for k in ("open", "high", "low", "close")),
        bars["volume"].to_numpy(np.float64),
    )
    out = np.full((len(bars), len(FEATURES)), np.nan, dtype=np.float32)
    for i, feature in enumerate(FEATURES):
        # TA-Lib refuses inputs shorter than its window; such a segment is all warm-up anyway.
        if len(bars) > feature.warm_up:
            out[:, i] = feature.compute(b)
    return out
