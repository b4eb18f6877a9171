from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from vnquant.market.adjustment import (
    daily_ratio,
    factor_step,
    official_change,
    rebuild,
    rounding_slack,
    taken_back,
)

RETURNS = st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=60)


def history(returns: list[float], bonus_at: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Raw close and an exact adj_close, with a 2:1 bonus issue at an index."""
    adjusted = 30.0 * np.exp(np.cumsum(returns))
    factor = np.ones(len(adjusted))
    if bonus_at is not None:
        factor[: bonus_at % len(factor)] = 2.0
    return adjusted * factor, adjusted


def first_only(n: int) -> np.ndarray:
    return np.arange(n) == 0


def rebuilt(close: np.ndarray, adj_close: np.ndarray) -> np.ndarray:
    first = first_only(len(close))
    return rebuild(close, daily_ratio(close, adj_close, first), first)


@given(RETURNS, st.integers(1, 50))
def test_returns_survive_and_the_first_level_is_the_raw_close(returns, bonus_at):
    close, adj_close = history(returns, bonus_at)
    out = rebuilt(close, adj_close)
    assert out[0] == close[0]
    slack = rounding_slack(adj_close[1:], adj_close[:-1])
    wanted = np.diff(np.log(adj_close))
    assert (np.abs(np.diff(np.log(out)) - wanted) <= 2 * slack + 1e-9).all()


@given(RETURNS, st.integers(1, 50), st.floats(0.2, 5.0))
def test_rescaling_the_adjusted_column_changes_nothing_but_rounding(returns, bonus_at, scale):
    close, adj_close = history(returns, bonus_at)
    a, b = rebuilt(close, adj_close), rebuilt(close, np.round(adj_close * scale, 2))
    n = np.arange(len(close))
    worst = 0.02 / min(adj_close.min(), scale * adj_close.min())
    assert (np.abs(np.log(b / a)) <= worst * (n + 1)).all()


@given(RETURNS, st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=20), st.integers(1, 50))
def test_later_bars_and_a_later_bonus_issue_leave_the_past_alone(returns, later, bonus_at):
    close, adj_close = history(returns, bonus_at)
    # A later 2:1 issue halves every earlier published adj_close; raw closes stay as they were.
    after = adj_close[-1] * np.exp(np.cumsum(later)) / 2
    longer_close = np.concatenate([close, after])
    longer_adjusted = np.concatenate([adj_close / 2, after])
    a, b = rebuilt(close, adj_close), rebuilt(longer_close, longer_adjusted)
    n = np.arange(len(close))
    worst = 0.02 / (adj_close.min() / 2)
    assert (np.abs(np.log(b[: len(a)] / a)) <= worst * (n + 1)).all()


def test_appending_bars_without_an_action_is_exact():
    close, adj_close = history([0.01, -0.02, 0.03, 0.01, 0.005, -0.04], 3)
    assert np.array_equal(rebuilt(close, adj_close)[:4], rebuilt(close[:4], adj_close[:4]))


def test_coarse_adjusted_closes_follow_the_raw_ones():
    # 0.93 printed with two decimals cannot show a move of half a per cent; the raw close can.
    close = np.array([20.0, 20.1, 20.2])
    adj_close = np.array([0.93, 0.93, 0.94])
    assert np.allclose(rebuilt(close, adj_close), close)


def test_factor_steps_only_on_the_ex_date():
    close = np.array([40.0, 41.0, 20.4, 20.6])
    adj_close = np.array([20.0, 20.5, 20.4, 20.6])
    step = factor_step(close, adj_close, first_only(4))
    assert step.tolist() == [1.0, 1.0, step[2], 1.0]
    assert np.isclose(step[2], 2.0)


def test_an_adjustment_of_one_bar_is_seen_on_the_next_bar():
    factor = np.array([1.0, 1.0, 1.77, 0.565, 1.0, 1.5, 1.0])
    found = taken_back(factor, first_only(7))
    assert found.tolist() == [False, False, False, True, False, False, False]
    assert not taken_back(factor[:3], first_only(3)).any()


def test_a_factor_is_not_taken_back_by_another_symbol():
    factor = np.array([1.0, 1.5, 1.0, 0.667])
    first = np.array([True, False, True, False])
    assert not taken_back(factor, first).any()
    assert taken_back(np.array([]), np.array([], dtype=bool)).tolist() == []


def test_change_texts():
    texts = pd.Series(["-0.5(-1.39 %)", "0(0.00 %)", "+1.25 (2 %)", ".5", None, "n/a"])
    found = official_change(texts)
    assert found[:4].tolist() == [-0.5, 0.0, 1.25, 0.5]
    assert np.isnan(found[4:]).all()
