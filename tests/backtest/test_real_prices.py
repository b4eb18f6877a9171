"""A naive momentum book on the real prices of 2022 and 2023: invariants, no figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vnquant.backtest.ablation import STEPS, ablation
from vnquant.backtest.bars import Bars, from_raw
from vnquant.backtest.limits import Source, limits
from vnquant.backtest.performance import align
from vnquant.backtest.portfolio import sleeves, top_k
from vnquant.backtest.quotes import quotes
from vnquant.backtest.replay import curves, figures, replay
from vnquant.backtest.rules import TradingRules
from vnquant.backtest.simulate import COSTS, Result, simulate
from vnquant.market.folder import PriceFolder
from vnquant.market.index import index_levels
from vnquant.market.sessions import between
from vnquant.market.universe import VN102
from vnquant.spec import BacktestSpec

FIRST, LAST = np.datetime64("2021-12-01"), np.datetime64("2023-12-29")


@pytest.fixture(scope="module")
def bars(shared_prices: Path) -> Bars:
    raw = PriceFolder(shared_prices).load(sorted(VN102))
    return from_raw(raw, between(FIRST, LAST), sorted(VN102))


@pytest.fixture(scope="module")
def targets(bars: Bars) -> np.ndarray:
    """Ten shares that rose most over five sessions, held for five, from 2022 on."""
    total = bars.close * np.cumprod(bars.factor, axis=0)
    momentum = np.full(total.shape, np.nan)
    momentum[5:] = total[5:] / total[:-5] - 1
    momentum[bars.dates < np.datetime64("2022-01-01")] = np.nan
    return sleeves(top_k(momentum, 10, allowed=bars.volume > 0))


@pytest.fixture(scope="module")
def result(bars: Bars, targets: np.ndarray) -> Result:
    return simulate(bars, targets)


def test_the_book_stands(bars: Bars, result: Result) -> None:
    assert (result.cash >= 0).all()
    assert (result.positions >= 0).all()
    assert (result.positions == np.floor(result.positions)).all()
    assert np.isfinite(result.equity).all()
    fills = result.fills
    assert len(fills) > 1000
    at = fills["session"].to_numpy(), fills["symbol"].to_numpy()
    assert (fills["filled"].to_numpy() <= 0.1 * bars.volume[at] + 1e-6).all()
    bought = (fills["side"] > 0).to_numpy()
    assert (fills["filled"].to_numpy()[bought] % 100 == 0).all()
    assert all((result.costs[name] >= -1e-6).all() for name in COSTS)


def test_no_fill_is_beyond_or_locked_at_a_limit(bars: Bars, result: Result) -> None:
    at = limits(bars, TradingRules())
    offer = quotes(bars, TradingRules())
    fills = result.fills
    cell = fills["session"].to_numpy(), fills["symbol"].to_numpy()
    bought = (fills["side"] > 0).to_numpy()
    price, raw = fills["price"].to_numpy(), offer.price[cell]
    assert (price[bought] <= np.maximum(at.ceiling[cell], raw)[bought] + 1e-6).all()
    assert (price[~bought] >= np.minimum(at.floor[cell], raw)[~bought] - 1e-6).all()
    assert not ((bars.low[cell] >= at.ceiling[cell] - 1e-6) & bought).any()
    assert not ((bars.high[cell] <= at.floor[cell] + 1e-6) & ~bought).any()


def test_the_limits_agree_with_what_traded(bars: Bars) -> None:
    """Since 2022 fewer than 1 % of bars of any venue may contradict the derived limits."""
    for rules, at_least in ((TradingRules(), 0.99), (TradingRules(average_reference=False), 0.9)):
        at = limits(bars, rules)
        for name in ("HOSE", "HNX", "UPCOM"):
            inside = (bars.exchange == name) & bars.has_bar
            inside[:10] = False
            assert np.mean(at.source[inside] != Source.CONTRADICTED) > at_least, name
    upcom = (bars.exchange == "UPCOM") & bars.has_bar
    upcom[:1] = False
    assert np.mean(limits(bars, TradingRules()).source[upcom] == Source.AVERAGE) > 0.9


def test_the_ladder_runs_and_costs_cost(bars: Bars, targets: np.ndarray) -> None:
    table = ablation(bars, targets)
    print(table.round(4).to_string())
    assert list(table.index) == ["naive", *STEPS]
    assert np.isfinite(table["net_return"]).all()
    for name in ("brokerage", "tax on sales", "slippage", "ticks"):
        assert table.loc[name, "taken"] > 0, name
    full = table.iloc[-1]
    assert full["fee"] > 0
    assert full["net_return"] < table["net_return"].iloc[0]


def test_the_index_covers_the_sessions(bars: Bars, shared_prices: Path) -> None:
    index = pd.read_parquet(shared_prices, filters=[("symbol", "==", "VNINDEX")])
    found = align(
        bars.dates, pd.to_datetime(index["date"]).to_numpy(), index["close"].to_numpy(np.float64)
    )
    assert np.isfinite(found.level).all()
    assert len(found.carried) <= 2


def test_a_table_of_forecasts_becomes_a_book_beside_the_index(
    bars: Bars, shared_prices: Path
) -> None:
    """The path of the stage backtest on all 102 shares: momentum as the forecast of 2022."""
    raw = PriceFolder(shared_prices).load(sorted(VN102))
    calendar = between(FIRST, LAST)
    pace = np.full(bars.close.shape, np.nan)
    pace[5:] = np.log(bars.close[5:] / bars.close[:-5])
    days, names = np.nonzero(np.isfinite(pace) & (calendar[:, None] < np.datetime64("2023-01-01")))
    table = pd.DataFrame({"date": calendar[days], "symbol": np.array(bars.symbols)[names]})
    table = table.assign(**{f"mu_{h}": pace[days, names] / 5 for h in range(1, 6)})
    book = replay(table, raw, calendar, BacktestSpec(), 5)
    levels = index_levels(shared_prices)
    index = align(book.bars.dates, levels["date"].to_numpy(), levels["close"].to_numpy(np.float64))
    curve = curves(book, index)
    assert curve["benchmark"].iloc[0] == 1.0
    assert curve.notna().all(axis=None)
    assert 0.5 < curve["benchmark"].iloc[-1] < 0.9, "VNINDEX fell by 27 % over these sessions"
    found = figures(book, index)
    print(found["metrics"], found["benchmark"])
    assert found["naive"]["net_return"] > found["metrics"]["net_return"]
    assert found["metrics"]["capacity"] > 0
    assert (book.real.positions[-1] == 0).mean() > 0.8, "what outlives the forecasts is sold"
