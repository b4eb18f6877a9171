"""The ten features of the market against plain pandas, and what they may not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vnquant.features.catalogue import MARKET, NAMES, SETS, names_of
from vnquant.features.indicators import compute_arrays
from vnquant.features.panel import Panel, build_panel

COLUMNS = ("adj_open", "adj_high", "adj_low", "adj_close", "volume")
N = 200


@pytest.fixture(scope="module")
def frame(make_bars) -> pd.DataFrame:
    return make_bars(N, seed=4)


def index(frame: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    steps = np.random.default_rng(seed).normal(0.0, 0.01, len(frame))
    return pd.DataFrame({"date": frame["date"], "close": 1000.0 * np.exp(np.cumsum(steps))})


def days(frame: pd.DataFrame) -> np.ndarray:
    return frame["date"].to_numpy().astype("datetime64[D]")


def compute(frame: pd.DataFrame, levels: np.ndarray) -> pd.DataFrame:
    values = compute_arrays(*(frame[c].to_numpy(dtype=float) for c in COLUMNS), levels)
    return pd.DataFrame(values, columns=list(names_of("v2")))


def test_the_second_set_is_the_first_and_ten_more(frame: pd.DataFrame) -> None:
    assert names_of("v1") == NAMES == names_of("v2")[:50]
    assert len(set(names_of("v2"))) == 60
    alone = compute_arrays(*(frame[c].to_numpy(dtype=float) for c in COLUMNS))
    both = compute(frame, index(frame)["close"].to_numpy())
    np.testing.assert_array_equal(both.to_numpy()[:, :50], alone)


def test_each_is_what_its_formula_says(frame: pd.DataFrame) -> None:
    levels = index(frame)["close"]
    found = compute(frame, levels.to_numpy())
    own = np.log(frame["adj_close"] / frame["adj_close"].iloc[0])
    market = np.log(levels)
    expected = pd.DataFrame(index=frame.index)
    for n in (1, 5, 20):
        expected[f"market_return_{n}"] = market.diff(n)
    expected["market_sma_60"] = np.log(levels / levels.rolling(60).mean())
    expected["market_std_20"] = market.diff().rolling(20).std(ddof=0)
    for n in (5, 20, 60):
        expected[f"relative_{n}"] = own.diff(n) - market.diff(n)
    slope = own.diff().rolling(60).cov(market.diff()) / market.diff().rolling(60).var()
    expected["beta_60"] = slope.clip(-5.0, 5.0)
    both = pd.DataFrame({"y": own.diff(), "x": market.diff()})
    left = [
        np.nan if i < 60 else np.std(np.polynomial.Polynomial.fit(
            part["x"], part["y"], 1)(part["x"]) - part["y"])
        for i, part in ((i, both.iloc[i - 59 : i + 1]) for i in range(N))
    ]  # fmt: skip
    expected["residual_std_60"] = left
    assert list(expected.columns) == [feature.name for feature in MARKET]
    np.testing.assert_allclose(found[expected.columns], expected, rtol=2e-4, atol=1e-6)


def test_no_level_after_a_session_counts(frame: pd.DataFrame) -> None:
    levels = index(frame)["close"].to_numpy()
    later = levels.copy()
    later[151:] *= 1.1
    before, after = compute(frame, levels), compute(frame, later)
    pd.testing.assert_frame_equal(before.iloc[:151], after.iloc[:151])
    changed = (before.iloc[151] != after.iloc[151]).to_numpy()
    assert changed[50:].any()
    assert not changed[:50].any()


def test_the_unit_of_the_index_does_not_matter(frame: pd.DataFrame) -> None:
    levels = index(frame)["close"].to_numpy()
    a, b = compute(frame, levels), compute(frame, levels * 7.0)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_index_that_stands_still_is_neutral(frame: pd.DataFrame) -> None:
    found = compute(frame, np.full(N, 1000.0)).iloc[70:]
    assert (found["beta_60"] == 0.0).all()
    np.testing.assert_allclose(found["residual_std_60"], found["std_60"], rtol=1e-5)
    np.testing.assert_allclose(found["relative_20"], found["return_20"], rtol=1e-5, atol=1e-7)


def test_sessions_without_a_known_level_have_no_feature(frame: pd.DataFrame) -> None:
    levels = index(frame)
    gap = levels.drop(index=[100])  # one session: the level before it counts
    assert np.isfinite(build_panel(frame, days(frame), 5, gap).features[70:]).all()
    hole = levels.drop(index=range(100, 130))  # six weeks: what is over 15 days old does not
    bad = ~np.isfinite(build_panel(frame, days(frame), 5, hole).features[70:]).all(axis=1)
    assert not bad[:30].any()
    assert bad[45:60].all()


def test_a_panel_remembers_its_set(frame: pd.DataFrame, tmp_path: Path) -> None:
    panel = build_panel(frame, days(frame), 5, index(frame))
    panel.save(tmp_path / "panel")
    again = Panel.load(tmp_path / "panel")
    assert again.names == names_of("v2")
    np.testing.assert_array_equal(again.features, panel.features)
    assert panel.features.shape[1] == len(SETS["v2"])
