from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import talib

from vnquant.features.catalogue import FEATURES, NAMES, SETS, SETTLED, WARM_UP, Group
from vnquant.features.indicators import compute

MakeBars = Callable[..., pd.DataFrame]


def column(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, NAMES.index(name)].astype(np.float64)


def test_there_are_exactly_50_with_names_of_their_own():
    assert len(FEATURES) == 50
    assert len(set(NAMES)) == 50
    assert all(name.isidentifier() and name == name.lower() for name in NAMES)


def test_every_feature_says_what_it_is():
    assert all(feature.formula.strip() for feature in FEATURES)
    assert len({feature.formula for feature in FEATURES}) == 50
    assert {feature.group for feature in SETS["v2"]} == set(get_args(Group))
    assert len({feature.formula for feature in SETS["v2"]}) == 60


def test_features_of_a_group_stand_together():
    groups = [feature.group for feature in FEATURES]
    changes = sum(a != b for a, b in pairwise(groups))
    assert changes == len(set(groups)) - 1


def test_a_window_starts_within_70_sessions():
    assert WARM_UP <= 70
    assert all(feature.warm_up >= 0 for feature in FEATURES)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 20, 60])
def test_returns_are_log_ratios_of_adjusted_closes(make_bars: MakeBars, n: int):
    frame = make_bars(200)
    close = frame["adj_close"].to_numpy()
    expected = np.log(close[n:] / close[:-n])
    np.testing.assert_allclose(column(compute(frame), f"return_{n}")[n:], expected, atol=1e-7)


def prices(frame: pd.DataFrame) -> list[np.ndarray]:
    return [frame[f"adj_{k}"].to_numpy() for k in ("high", "low", "close")]


def band_width(upper: np.ndarray, middle: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return (upper - lower) / middle


PUBLISHED = {
    "cci_20": lambda f: talib.CCI(*prices(f), 20) / 100.0,
    "mfi_14": lambda f: talib.MFI(*prices(f), f["volume"].to_numpy(), 14) / 50.0 - 1.0,
    "ultimate": lambda f: talib.ULTOSC(*prices(f), 7, 14, 28) / 50.0 - 1.0,
    "williams_10": lambda f: talib.WILLR(*prices(f), 10) / 100.0,
    "stochastic_k": lambda f: talib.STOCH(*prices(f), 14, 3, 0, 3, 0)[0] / 50.0 - 1.0,
    "stochastic_d": lambda f: talib.STOCH(*prices(f), 14, 3, 0, 3, 0)[1] / 50.0 - 1.0,
    "rsi_7": lambda f: talib.RSI(prices(f)[2], 7) / 50.0 - 1.0,
    "rsi_14": lambda f: talib.RSI(prices(f)[2], 14) / 50.0 - 1.0,
    "adx_14": lambda f: talib.ADX(*prices(f), 14) / 100.0,
    "aroon_25": lambda f: talib.AROONOSC(*prices(f)[:2], 25) / 100.0,
    "atr_14": lambda f: talib.NATR(*prices(f), 14) / 100.0,
    "bollinger_width": lambda f: band_width(*talib.BBANDS(prices(f)[2], 20, 2.0, 2.0)),
    "trix_9": lambda f: talib.TRIX(prices(f)[2], 9) / 100.0,
}


def lively(frame: pd.DataFrame) -> pd.DataFrame:
    """The same bars off the ticks: without ties, every published definition agrees."""
    out = frame.copy()
    jitter = np.exp(np.random.default_rng(9).normal(0.0, 0.002, len(out)))
    for name in ("adj_open", "adj_high", "adj_low", "adj_close"):
        out[name] = out[name] * jitter
    out["adj_high"] *= 1.003
    out["adj_low"] /= 1.003
    return out


@pytest.mark.parametrize("name", PUBLISHED)
def test_ordinary_bars_give_the_published_indicator(make_bars: MakeBars, name: str):
    frame = lively(make_bars(300, seed=4))
    ours, theirs = column(compute(frame), name), PUBLISHED[name](frame)
    # TA-Lib begins some oscillators two sessions later than it could.
    begin = FEATURES[NAMES.index(name)].warm_up + 2
    np.testing.assert_allclose(ours[begin:], theirs[begin:], rtol=1e-5, atol=2e-6)


def test_the_start_of_a_recursive_average_is_nearly_forgotten(make_bars: MakeBars):
    """At the end of the warm-up, what came before the segment hardly matters any more."""
    gaps, spread = [], []
    for seed in range(12):
        frame = make_bars(400, seed=seed)
        whole, cut = compute(frame), compute(frame.iloc[200:])
        gaps.append(np.abs(whole[200 + SETTLED] - cut[SETTLED]))
        spread.append(np.nanstd(whole, axis=0))
    relative = np.mean(gaps, axis=0) / np.mean(spread, axis=0)
    assert relative.max() < 0.1, NAMES[int(relative.argmax())]
