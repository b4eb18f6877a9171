from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnquant.errors import DataError
from vnquant.features.catalogue import FEATURES, NAMES, WARM_UP
from vnquant.features.indicators import COLUMNS, PRICES, compute

MakeBars = Callable[..., pd.DataFrame]

N = 150
QUICK = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def test_shape_and_type(make_bars: MakeBars):
    values = compute(make_bars(N))
    assert values.shape == (N, 50)
    assert values.dtype == np.float32


@pytest.mark.parametrize("n", [0, 1, 2, 3, 19, 20, 60, 69, 70, 71, 90])
def test_warm_up_is_exactly_as_declared(make_bars: MakeBars, n: int):
    values = compute(make_bars(N).iloc[:n])
    age = np.arange(n)[:, None]
    declared = np.array([feature.warm_up for feature in FEATURES])
    np.testing.assert_array_equal(np.isnan(values), age < declared)


@QUICK
@given(seed=seeds, t=st.integers(0, N - 2))
def test_no_future_bar_changes_a_feature(make_bars: MakeBars, seed: int, t: int):
    """Every bar after t becomes another one; all 50 features up to t stay bit for bit."""
    before = make_bars(N, seed=seed)
    after = before.copy()
    rng = np.random.default_rng(seed + 1)
    later = slice(t + 1, None)
    for name in PRICES:
        after.loc[later, name] *= np.exp(rng.normal(0.0, 1.0, N - t - 1))
    after.loc[later, "volume"] = rng.integers(0, 10**9, N - t - 1).astype(float)
    after.loc[later, "value"] = np.nan
    np.testing.assert_array_equal(compute(before)[: t + 1], compute(after)[: t + 1])


@QUICK
@given(seed=seeds, t=st.integers(0, N - 1))
def test_a_truncated_history_gives_the_same_row(make_bars: MakeBars, seed: int, t: int):
    whole = make_bars(N, seed=seed)
    np.testing.assert_array_equal(compute(whole)[: t + 1], compute(whole.iloc[: t + 1]))


def test_the_causality_test_would_notice_a_leak(make_bars: MakeBars):
    """Each feature does depend on its own session: the perturbation above is strong enough."""
    frame = make_bars(N)
    changed = frame.copy()
    changed.loc[N - 1, ["adj_open", "adj_high", "adj_low", "adj_close"]] *= [1.3, 1.9, 0.4, 0.7]
    changed.loc[N - 1, "volume"] *= 7.0
    same = compute(frame)[-1] == compute(changed)[-1]
    assert {NAMES[j] for j in np.flatnonzero(same)} <= {"aroon_25"}
    changed.loc[N - 1, "adj_high"] *= 1000.0
    assert column_changed(frame, changed, "aroon_25")


def column_changed(a: pd.DataFrame, b: pd.DataFrame, name: str) -> bool:
    j = NAMES.index(name)
    return bool(compute(a)[-1, j] != compute(b)[-1, j])


@QUICK
@given(
    seed=seeds,
    price=st.floats(1e-6, 1e6, allow_subnormal=False),
    shares=st.floats(1e-3, 1e6, allow_subnormal=False),
)
def test_units_of_price_and_volume_do_not_matter(
    make_bars: MakeBars, seed: int, price: float, shares: float
):
    frame = make_bars(N, seed=seed)
    scaled = frame.copy()
    for name in PRICES:
        scaled[name] *= price
    scaled["volume"] *= shares
    scaled["value"] *= price * shares
    np.testing.assert_allclose(compute(scaled), compute(frame), rtol=1e-5, atol=1e-5)


def test_raw_prices_and_value_are_not_read(make_bars: MakeBars):
    frame = make_bars(N)
    np.testing.assert_array_equal(compute(frame), compute(frame[list(COLUMNS)]))


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    frame[list(PRICES)] = 17.35
    return frame


def locked_up(frame: pd.DataFrame) -> pd.DataFrame:
    """Every session opens, trades and closes at its ceiling."""
    ceiling = 10.0 * 1.069 ** np.arange(len(frame))
    for name in PRICES:
        frame[name] = ceiling
    return frame


def quiet_then_lively(frame: pd.DataFrame) -> pd.DataFrame:
    half = len(frame) // 2
    frame.loc[:half, list(PRICES)] = frame.loc[half + 1, "adj_open"]
    frame.loc[:half, "volume"] = 0.0
    return frame


def lively_then_quiet(frame: pd.DataFrame) -> pd.DataFrame:
    half = len(frame) // 2
    frame.loc[half:, list(PRICES)] = frame.loc[half - 1, "adj_close"]
    frame.loc[half:, "volume"] = 0.0
    return frame


def constant_volume(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(volume=100.0)


def no_volume(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(volume=0.0, value=0.0)


def no_ranges(frame: pd.DataFrame) -> pd.DataFrame:
    """One price a day, another each day."""
    for name in PRICES:
        frame[name] = frame["adj_close"]
    return frame


def penny(frame: pd.DataFrame) -> pd.DataFrame:
    """From 100 down to 0.1 in steps of three per cent, then still."""
    price = np.maximum(100.0 * 0.97 ** np.arange(len(frame)), 0.1)
    for name, k in zip(PRICES, (1.0, 1.01, 0.99, 1.0), strict=True):
        frame[name] = price * k
    return frame


DEGENERATE = [
    flat,
    locked_up,
    quiet_then_lively,
    lively_then_quiet,
    constant_volume,
    no_volume,
    no_ranges,
    penny,
]


@pytest.mark.parametrize("make", DEGENERATE)
def test_degenerate_bars_give_finite_and_moderate_features(make_bars: MakeBars, make):
    values = compute(make(make_bars(400)))[WARM_UP:]
    assert np.isfinite(values).all()
    # A guard that fails divides rounding by rounding and gives huge numbers.
    assert np.abs(values).max() < 10.0


@pytest.mark.parametrize("make", DEGENERATE)
@pytest.mark.parametrize("price", [1e-4, 0.3, 3e4])
def test_degenerate_bars_are_scale_free_too(make_bars: MakeBars, make, price: float):
    frame = make(make_bars(400))
    scaled = frame.copy()
    for name in PRICES:
        scaled[name] *= price
    np.testing.assert_allclose(compute(scaled), compute(frame), rtol=1e-4, atol=1e-4)


def test_nothing_moved_means_neutral(make_bars: MakeBars):
    values = dict(zip(NAMES, compute(flat(make_bars(200)))[-1], strict=True))
    varying = {"volume_20", "volume_60", "turnover_5_60"}
    expected = {"williams_10": -0.5}
    for name, value in values.items():
        if name not in varying:
            assert value == pytest.approx(expected.get(name, 0.0), abs=1e-9), name


def test_noise_of_the_adjustment_does_not_decide_ties(make_bars: MakeBars):
    """Equal raw prices differ in the last bits once multiplied and divided by factors."""
    frame = make_bars(N)
    noisy = frame.copy()
    rng = np.random.default_rng(0)
    for name in PRICES:
        noisy[name] *= 1.0 + rng.choice([-1e-15, 0.0, 1e-15], N)
    np.testing.assert_allclose(compute(noisy), compute(frame), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("column", "value"),
    [("adj_close", 0.0), ("adj_low", -1.0), ("adj_high", np.inf), ("adj_open", np.nan),
     ("volume", -100.0), ("volume", np.nan)],
)  # fmt: skip
def test_unusable_bars_are_refused(make_bars: MakeBars, column: str, value: float):
    frame = make_bars(N)
    frame.loc[40, column] = value
    with pytest.raises(DataError, match=column):
        compute(frame)


def test_a_missing_column_is_named(make_bars: MakeBars):
    with pytest.raises(DataError, match="adj_high"):
        compute(make_bars(N).drop(columns="adj_high"))
