"""Shuffled prices keep what they should, lose their order, and pass as real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vnquant.market import rules
from vnquant.market.folder import PriceFolder
from vnquant.market.index import index_levels
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.shuffle import MOST_MEDIAN, block_order, carried, follow, shuffled


def returns(bars: pd.DataFrame) -> pd.Series:
    """Daily log returns by symbol and date."""
    level = np.log(bars.set_index(["symbol", "date"])["adj_close"])
    return level.groupby("symbol").diff().dropna()


def test_an_order_keeps_blocks_together_and_every_session_once() -> None:
    order = block_order(23, 5, np.random.default_rng(0))
    assert sorted(order) == list(range(23))
    assert (np.diff(order) == 1).sum() >= 4 * 4 + 2
    assert list(order) != list(range(23))


def test_shares_follow_one_order_where_their_histories_overlap() -> None:
    order = block_order(200, 1, np.random.default_rng(1))
    whole = follow(order, np.arange(200), np.random.default_rng(2))
    assert (whole == order).all()
    late = np.arange(50, 200)
    source = follow(order, late, np.random.default_rng(3))
    assert sorted(source) == list(range(150))
    known = order[late] >= 50
    assert (late[source][known] == order[late][known]).all()


def test_what_is_planted_is_there_and_nothing_else_changes() -> None:
    steps = np.random.default_rng(0).normal(0.001, 0.02, 20_000)
    owner = np.repeat([0, 1], 10_000)
    assert carried(steps, owner, 0.0) is steps
    planted = carried(steps, owner, 0.5)
    assert np.corrcoef(planted[1:], planted[:-1])[0, 1] == pytest.approx(0.5, abs=0.02)
    assert planted.std() == pytest.approx(steps.std(), rel=0.02)
    assert planted.mean() == pytest.approx(steps.mean(), abs=2e-4)


def test_a_path_that_rises_a_thousandfold_still_passes_as_thousand_vnd(
    market_bars: pd.DataFrame, tmp_path: Path
) -> None:
    bars = market_bars.copy()
    rising = np.exp(np.linspace(0.0, np.log(1000.0), int((bars["symbol"] == "FPT").sum())))
    for name in ("open", "high", "low", "close", "adj_close"):
        bars.loc[bars["symbol"] == "FPT", name] *= rising
    found = shuffled(bars, block=1, seed=3)
    found.to_parquet(tmp_path / "p.parquet", index=False)
    close = PriceFolder(tmp_path / "p.parquet").load()
    close = close[close["symbol"] == "FPT"]["close"]
    assert close.max() / close.min() > 100
    assert close.median() == pytest.approx(MOST_MEDIAN, rel=0.2)


def test_shuffled_bars_are_bars_that_nothing_is_wrong_with(
    market_bars: pd.DataFrame, tmp_path: Path
) -> None:
    days = np.unique(market_bars["date"])
    levels = pd.DataFrame({"date": days, "close": 1000.0 + np.arange(len(days))})
    bars = shuffled(market_bars, levels, block=10, seed=3)
    bars.to_parquet(tmp_path / "p.parquet", index=False)
    again = PriceFolder(tmp_path / "p.parquet").load()
    found = inspect(again, sessions(again), max_gap=10)
    allowed = {"long_gap", "missing_session", "flat_bar", "short_history"}
    assert {name for name, count in found.counts.items() if count} <= allowed
    index = index_levels(tmp_path / "p.parquet")
    assert index["close"].iloc[-1] == pytest.approx(levels["close"].iloc[-1], abs=0.01)
    before = again.groupby("symbol")["close"].shift().to_numpy()
    at = np.isfinite(before)
    venue, day = again["exchange"].to_numpy(str)[at], again["date"].to_numpy()[at]
    for name in ("open", "high", "low", "close"):
        price = again[name].to_numpy()[at]
        assert (price == rules.round_to_tick(venue, price, day)).all()
        assert (price <= rules.ceiling(venue, before[at], day)).all()
        assert (price >= rules.floor(venue, before[at], day)).all()


def test_a_seed_is_one_order(market_bars: pd.DataFrame) -> None:
    one, same, other = (shuffled(market_bars, block=5, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one["close"].equals(other["close"])


def test_the_distribution_stays_and_the_order_goes(market_bars: pd.DataFrame) -> None:
    """But for ticks: the returns of a share are the same ones, sorted differently."""
    real, made = returns(market_bars), returns(shuffled(market_bars, block=1, seed=0))
    for symbol in ("FPT", "PVS", "ACV"):
        a, b = np.sort(real[symbol].to_numpy()), np.sort(made[symbol].to_numpy())
        middle = np.linspace(0.02, 0.98, 49)
        assert np.quantile(b, middle) == pytest.approx(np.quantile(a, middle), abs=0.006)


def test_real_returns_lose_their_order_and_keep_the_market(shared_prices: Path) -> None:
    raw = PriceFolder(shared_prices).load(["FPT", "HPG", "VCB", "SSI", "VNM", "MBB"])
    raw = raw[raw["date"] >= "2015-01-01"].reset_index(drop=True)
    real, made = returns(raw).unstack(0), returns(shuffled(raw, block=1, seed=0)).unstack(0)
    assert real.corr().mean().mean() == pytest.approx(made.corr().mean().mean(), abs=0.02)
    market = made.mean(axis=1)
    lags = [market.autocorr(lag) for lag in range(1, 6)]
    assert np.abs(lags).max() < 3 / np.sqrt(len(market))
    # What blocks are for: without them, volatility has no clusters left.
    size = returns(shuffled(raw, block=20, seed=0)).unstack(0).mean(axis=1).abs()
    assert market.abs().autocorr(1) < 0.07 < size.autocorr(1)
