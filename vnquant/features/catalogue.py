"""The catalogue: exactly 50 features, frozen under the name "v1"; with ten more it is "v2".

A changed formula, order or warm-up is another set and needs another name in
`vnquant.spec.FeatureSpec`: trained models remember the set by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vnquant.features import formulas as f

Group = Literal["returns", "candle", "trend", "oscillators", "volatility", "volume", "market"]

SETTLED = 69
"""Warm-up of the recursive averages (Wilder, EMA). They start from a plain average of their first
sessions; after 69 sessions the start weighs little (below 1 % for the 20-session EMA and RSI(7),
about 2 % for RSI(14) and ATR(14), 5 % for ADX(14) and the slow side of MACD)."""


@dataclass(frozen=True)
class Feature:
    """One feature: a function of a segment's bars up to and including the session.

    Attributes:
        warm_up: first sessions of a segment that have no value (NaN).
        compute: bars to float64 ``[n]``; `vnquant.features.indicators` blanks the warm-up.
    """

    name: str
    group: Group
    formula: str
    warm_up: int
    compute: f.Formula


def _return(n: int) -> Feature:
    words = f"log of close / close {n} session{'s' if n > 1 else ''} ago"
    return Feature(f"return_{n}", "returns", words, n, f.log_return(n))


_RANGE = "(high - low); 0 if the bar has no range"

FEATURES: tuple[Feature, ...] = (
    *(_return(n) for n in (1, 2, 3, 5, 10, 20, 60)),
    Feature("gap", "candle", "log of open / previous close", 1, f.gap),
    Feature("body", "candle", f"(close - open) / {_RANGE}", 0, f.body),
    Feature("upper_shadow", "candle", f"(high - max(open, close)) / {_RANGE}", 0, f.upper_shadow),
    Feature("lower_shadow", "candle", f"(min(open, close) - low) / {_RANGE}", 0, f.lower_shadow),
    Feature(
        "close_location",
        "candle",
        f"((close - low) - (high - close)) / {_RANGE}",
        0,
        f.close_location,
    ),
    Feature(
        "close_location_5",
        "candle",
        "mean of close_location over 5 sessions",
        4,
        f.close_location_mean,
    ),
    Feature("day_range", "candle", "log of high / low", 0, f.day_range),
    Feature("sma_5", "trend", "log of close / mean close of 5 sessions", 4, f.above_mean(5)),
    Feature("sma_20", "trend", "log of close / mean close of 20 sessions", 19, f.above_mean(20)),
    Feature("sma_60", "trend", "log of close / mean close of 60 sessions", 59, f.above_mean(60)),
    Feature("ema_10", "trend", "log of close / EMA(10) of close", SETTLED, f.above_ema(10)),
    Feature("ema_20", "trend", "log of close / EMA(20) of close", SETTLED, f.above_ema(20)),
    Feature("macd", "trend", "(EMA(12) - EMA(26) of close) / close", SETTLED, f.macd),
    Feature(
        "macd_histogram",
        "trend",
        "(MACD(12, 26) - its EMA(9)) / close",
        SETTLED,
        f.macd_histogram,
    ),
    Feature("adx_14", "trend", "ADX(14) / 100: strength of a trend, 0..1", SETTLED, f.adx),
    Feature("di_14", "trend", "(+DI(14) - -DI(14)) / 100, -1..1", SETTLED, f.directional_balance),
    Feature(
        "aroon_25",
        "trend",
        "sessions since the 25-session low minus since the high, / 25, -1..1",
        25,
        f.aroon,
    ),
    Feature(
        "slope_20",
        "trend",
        "least-squares slope of log close over 20 sessions, per session",
        19,
        f.slope(20),
    ),
    Feature("high_60", "trend", "log of close / highest high of 60 sessions", 59, f.below_high(60)),
    Feature("low_60", "trend", "log of close / lowest low of 60 sessions", 59, f.above_low(60)),
    Feature(
        "rsi_7", "oscillators", "RSI(7) / 50 - 1; 0 if nothing moved, -1..1", SETTLED, f.rsi(7)
    ),
    Feature(
        "rsi_14", "oscillators", "RSI(14) / 50 - 1; 0 if nothing moved, -1..1", SETTLED, f.rsi(14)
    ),
    Feature(
        "stochastic_k",
        "oscillators",
        "slow %K(14, 3): place of close in the 14-session range, mean of 3, as -1..1; "
        "the middle if there is no range",
        15,
        f.stochastic_k,
    ),
    Feature(
        "stochastic_d", "oscillators", "mean of stochastic_k over 3 sessions", 17, f.stochastic_d
    ),
    Feature(
        "williams_10",
        "oscillators",
        "Williams %R(10) / 100, -1..0; -0.5 if there is no range",
        9,
        f.williams(10),
    ),
    Feature(
        "cci_20",
        "oscillators",
        "CCI(20) / 100: typical price from its mean, in 1.5 mean absolute deviations; "
        "0 if it did not move",
        19,
        f.cci,
    ),
    Feature(
        "mfi_14",
        "oscillators",
        "money flow (typical price x volume) on rising minus on falling typical price, / their "
        "sum, 14 sessions; 0 without flow, -1..1",
        14,
        f.mfi,
    ),
    Feature(
        "ultimate",
        "oscillators",
        "ultimate oscillator (7, 14, 28) / 50 - 1; 0 if there is no true range, -1..1",
        28,
        f.ultimate,
    ),
    Feature(
        "trix_9",
        "oscillators",
        "change over one session of the triple EMA(9) of close",
        SETTLED,
        f.trix(9),
    ),
    Feature("atr_14", "volatility", "ATR(14) / close", SETTLED, f.atr),
    Feature(
        "parkinson_20",
        "volatility",
        "root of the mean of log(high / low)^2 / (4 log 2), 20 sessions",
        19,
        f.parkinson(20),
    ),
    Feature(
        "garman_klass_20",
        "volatility",
        "root of the mean of log(high / low)^2 / 2 - (2 log 2 - 1) log(close / open)^2, "
        "20 sessions",
        19,
        f.garman_klass,
    ),
    Feature("std_5", "volatility", "deviation of return_1, 5 sessions", 5, f.return_deviation(5)),
    Feature(
        "std_20", "volatility", "deviation of return_1, 20 sessions", 20, f.return_deviation(20)
    ),
    Feature(
        "std_60", "volatility", "deviation of return_1, 60 sessions", 60, f.return_deviation(60)
    ),
    Feature(
        "bollinger_position",
        "volatility",
        "(close - mean close) / twice its deviation, 20 sessions; 0 if it did not move",
        19,
        f.bollinger_position,
    ),
    Feature(
        "bollinger_width",
        "volatility",
        "four deviations of close / mean close, 20 sessions",
        19,
        f.bollinger_width,
    ),
    Feature(
        "volume_20",
        "volume",
        "log of volume / mean volume of 20 sessions, within -5..5; 0 without any trade",
        19,
        f.volume_above_mean(20),
    ),
    Feature(
        "volume_60",
        "volume",
        "log of volume / mean volume of 60 sessions, within -5..5; 0 without any trade",
        59,
        f.volume_above_mean(60),
    ),
    Feature(
        "obv_20",
        "volume",
        "change of on-balance volume over 20 sessions / volume traded in them, -1..1; "
        "0 without any trade",
        20,
        f.obv_change,
    ),
    Feature(
        "money_flow_20",
        "volume",
        "Chaikin money flow: close_location weighted by volume, 20 sessions, -1..1; "
        "0 without any trade",
        19,
        f.money_flow,
    ),
    Feature(
        "volume_return_20",
        "volume",
        "correlation of return_1 and volume, 20 sessions; 0 if either did not move",
        20,
        f.volume_return,
    ),
    Feature(
        "turnover_5_60",
        "volume",
        "log of mean turnover (typical price x volume) of 5 sessions / of 60, within -5..5; "
        "0 without any trade",
        59,
        f.turnover,
    ),
)

_MARKET = "log return of VNINDEX over the same"

MARKET: tuple[Feature, ...] = (
    *(
        Feature(
            f"market_return_{n}",
            "market",
            f"{_MARKET} {n} session{'s' * (n > 1)}",
            n,
            f.market_return(n),
        )
        for n in (1, 5, 20)
    ),
    Feature(
        "market_sma_60",
        "market",
        "log of VNINDEX / its mean of 60 sessions",
        59,
        f.market_above_mean(60),
    ),
    Feature(
        "market_std_20",
        "market",
        "deviation of market_return_1, 20 sessions",
        20,
        f.market_deviation(20),
    ),
    *(
        Feature(f"relative_{n}", "market", f"return_{n} less that of VNINDEX", n, f.relative(n))
        for n in (5, 20, 60)
    ),
    Feature(
        "beta_60",
        "market",
        "slope of return_1 on market_return_1, 60 sessions, within -5..5; "
        "0 if the index did not move",
        60,
        f.beta(60),
    ),
    Feature(
        "residual_std_60",
        "market",
        "deviation of what that slope leaves of return_1",
        60,
        f.residual_deviation(60),
    ),
)
"""What needs the level of VNINDEX; as few as leave an embedding of exchanges room in 64 inputs."""

SETS: dict[str, tuple[Feature, ...]] = {"v1": FEATURES, "v2": FEATURES + MARKET}

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
WARM_UP: int = max(feature.warm_up for feature in FEATURES)
"""Sessions of a segment before its first complete row."""


def names_of(name: str) -> tuple[str, ...]:
    """The columns of a set, in order."""
    return tuple(feature.name for feature in SETS[name])
