"""Figures by hand, the index on the sessions, and the ladder of rules."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.backtest.cases import NO, market, only, weights
from vnquant.backtest.ablation import STEPS, ablation, ladder
from vnquant.backtest.performance import (
    SESSIONS_PER_YEAR,
    against,
    align,
    capacity,
    max_drawdown,
    returns,
    sharpe,
    summary,
    turnover,
)
from vnquant.backtest.rules import NAIVE, TradingRules
from vnquant.backtest.simulate import simulate
from vnquant.errors import DataError
from vnquant.market.sessions import between


def days(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[D]")


def test_sessions_per_year_are_those_of_the_calendar() -> None:
    sessions = between(np.datetime64("2010-01-01"), np.datetime64("2025-12-31"))
    assert len(sessions) / 16 == pytest.approx(SESSIONS_PER_YEAR, abs=1.0)


def test_returns_sharpe_and_drawdown_by_hand() -> None:
    equity = np.array([110.0, 99.0, 108.9])
    daily = returns(equity, 100.0)
    assert daily == pytest.approx([0.1, -0.1, 0.1])
    # Mean 1/30, deviation sqrt(2 (1/15)^2 + (2/15)^2) / sqrt 2 = 0.11547.
    assert sharpe(daily, 4) == pytest.approx((1 / 30) / 0.1154700538 * 2)
    assert max_drawdown(equity, 100.0) == pytest.approx(0.1)
    assert max_drawdown(np.array([90.0, 95.0]), 100.0) == pytest.approx(0.1)
    assert sharpe(np.array([0.01])) is None
    assert sharpe(np.full(9, 0.01)) is None


def test_turnover_and_capacity_by_hand() -> None:
    bars = market([10.0] * 4, volume=50_000)
    result = simulate(bars, weights(0.5, NO, 0.0, NO), only(), capital=100e6)
    # 50 million in and out within 4 sessions, of a mean equity of 100 million.
    assert turnover(result, sessions_per_year=4) == pytest.approx(1.0)
    # 5,000 of 50,000 shares is the tenth allowed: exactly this capital.
    assert capacity(result, bars) == pytest.approx(100e6)
    assert capacity(result, bars, participation=0.05) == pytest.approx(50e6)
    idle = simulate(bars, np.full((4, 1), NO), only(), capital=100e6)
    assert capacity(idle, bars) is None
    figures = summary(idle, bars, 100e6)
    assert figures["net_return"] == figures["turnover"] == figures["invested"] == 0
    assert figures["sharpe"] is None


def test_capacity_leaves_out_the_rarest_of_the_value() -> None:
    bars = market([[10.0, 10.0]] * 2, volume=[[50_000, 500]] * 2)
    result = simulate(bars, weights([0.96, 0.04], [NO, NO]), only(), capital=100e6)
    # 9,600 of 50,000 shares are the 96 % of value; the 400 of 500 are beyond the 95 %.
    assert capacity(result, bars) == pytest.approx(100e6 * 0.1 / 0.192)
    assert capacity(result, bars, covered=0.97) == pytest.approx(100e6 * 0.1 / 0.8)


def test_the_index_is_put_on_the_sessions_of_the_shares() -> None:
    dates = days("2018-01-22", "2018-01-23", "2018-01-24", "2018-01-25")
    index = days("2018-01-27", "2018-01-19", "2018-01-22", "2018-01-25")
    found = align(dates, index, np.array([999.0, 1000.0, 1100.0, 1200.0]))
    assert found.level.tolist() == [1100, 1100, 1100, 1200]
    assert (found.carried == dates[1:3]).all()
    with pytest.raises(DataError, match="cover"):
        align(days("2018-01-18", "2018-01-22"), index, np.arange(4.0) + 1)
    with pytest.raises(DataError, match="cover"):
        align(days("2018-01-22", "2018-02-22"), index, np.arange(4.0) + 1)


def test_a_curve_beside_its_index() -> None:
    dates = between(np.datetime64("2023-06-05"), np.datetime64("2023-06-09"))
    index = np.array([1000.0, 1010.0, 1000.0, 1020.0, 1010.0])
    found = align(dates, dates, index)
    moves = index[1:] / index[:-1] - 1
    same = against(np.concatenate([[0.0], moves]), found)
    assert same["beta"] == pytest.approx(1.0)
    assert same["tracking_error"] == pytest.approx(0.0)
    assert same["information_ratio"] is None
    double = against(np.concatenate([[0.0], 2 * moves]), found)
    assert double["beta"] == pytest.approx(2.0)
    assert double["correlation"] == pytest.approx(1.0)
    assert double["benchmark_return"] == pytest.approx(0.01)
    assert double["excess_return"] == pytest.approx(moves.mean() * SESSIONS_PER_YEAR)


def test_the_ladder_leads_from_nothing_to_all_rules() -> None:
    steps = list(ladder())
    assert steps[0] == ("naive", NAIVE)
    assert steps[-1][1] == TradingRules()
    fields = [name for names in STEPS.values() for name in names]
    assert sorted(fields) == sorted(TradingRules.__dataclass_fields__)


def test_what_each_rule_takes_adds_up() -> None:
    random = np.random.default_rng(3)
    close = 20 * np.exp(np.cumsum(random.normal(0, 0.02, (60, 3)), axis=0))
    bars = market(close.round(1), exchange=["HOSE", "HNX", "UPCOM"])
    targets = random.dirichlet(np.ones(3), 60)
    table = ablation(bars, targets)
    taken = table["net_return"].iloc[0] - table["net_return"].iloc[-1]
    assert table["taken"].sum() == pytest.approx(taken)
    assert list(table.index) == ["naive", *STEPS]
    assert table.loc["brokerage", "taken"] > 0
    assert table.loc["tax on sales", "taken"] > 0
    assert table.loc["slippage", "slippage"] > 0
    assert math.isnan(table["sharpe"].iloc[0]) is False


def test_cash_on_its_way_flatters_a_book_that_loses_until_exposure_is_counted() -> None:
    """Three shares that fall alike, all of the money moved on every other session."""
    close = np.tile(50.0 * 0.995 ** np.arange(80), (3, 1)).T
    targets = np.eye(3)[np.arange(80) // 2 % 3]
    table = ablation(market(close), targets, only(settle_cash=True))
    step = table.loc["settlement of cash"]
    before = table.loc["settlement of shares"]
    assert step["taken"] < -0.05, "less was lost"
    assert step["invested"] < 0.75 * before["invested"]
    assert step["exposed"] == pytest.approx(before["exposed"], rel=0.1)
    # 0.5 % a session, 250 sessions a year, of what is in shares.
    assert before["exposed"] == pytest.approx(-0.005 * SESSIONS_PER_YEAR, rel=0.1)


def test_a_book_without_shares_earns_nothing_per_exposure() -> None:
    table = ablation(market(np.full(10, 20.0)), np.zeros((10, 1)))
    assert table["exposed"].isna().all()
