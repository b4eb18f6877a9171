"""Exact fills, each case a rule worked by hand. Capital 100 million VND, prices in thousand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backtest.cases import NO, market, only, weights
from vnquant.backtest.bars import Bars
from vnquant.backtest.quotes import Reason
from vnquant.backtest.rules import NAIVE, TradingRules
from vnquant.backtest.simulate import Result, simulate
from vnquant.errors import DataError, UsageError

CAPITAL = 100e6


def run(bars: Bars, targets: np.ndarray, rules: TradingRules) -> Result:
    return simulate(bars, targets, rules, capital=CAPITAL)


def reasons(result: Result) -> list[str]:
    return [Reason(code).name for code in result.orders["reason"]]


def held(result: Result) -> list[float]:
    return [round(float(v), 6) for v in result.positions[:, 0]]


def test_a_signal_at_the_close_trades_at_the_next_open() -> None:
    bars = market([10, 12, 12], open=[10, 11, 12])
    result = run(bars, weights(0.5, NO, NO), only())
    # Half of 100 million at the close of 10: 5,000 shares, bought at 11.
    assert held(result) == [0, 5000, 5000]
    assert result.cash.tolist() == pytest.approx([100e6, 45e6, 45e6])
    assert result.equity.tolist() == pytest.approx([100e6, 105e6, 105e6])
    order = result.orders.iloc[0]
    assert (order["session"], order["name"], order["side"]) == (1, "A", 1)
    assert (order["ordered"], order["filled"], order["price"]) == (5000, 5000, 11.0)
    assert order["value"] == 55e6


def test_the_naive_book_trades_at_the_close_of_its_signal() -> None:
    result = run(market([10, 12], open=[10, 11]), weights(0.5, NO), NAIVE)
    assert held(result) == [5000, 5000]
    assert result.equity.tolist() == pytest.approx([100e6, 110e6])


def test_at_the_close_of_the_next_session() -> None:
    result = run(market([10, 12], open=[10, 11]), weights(0.5, NO), only(price="close"))
    assert result.orders["price"].tolist() == [12.0]


def test_no_target_is_no_order_and_zero_sells() -> None:
    result = run(market([10.0] * 4), weights(0.5, NO, 0.0, NO), only())
    assert held(result) == [0, 5000, 5000, 0]
    assert result.orders["side"].tolist() == [1, -1]


def test_fees_and_tax_by_kind() -> None:
    result = run(market([10.0] * 3), weights(0.5, 0.0, NO), only(fee=0.0015, sale_tax=0.001))
    # 50 million bought and sold: 75,000 each way, and 50,000 of tax.
    assert result.costs["fee"].tolist() == pytest.approx([0, 75e3, 75e3])
    assert result.costs["tax"].tolist() == pytest.approx([0, 0, 50e3])
    assert result.equity[-1] == pytest.approx(100e6 - 200e3)


def test_slippage_is_paid_both_ways() -> None:
    result = run(market([10.0] * 3), weights(0.5, 0.0, NO), only(slippage=0.01))
    assert result.orders["price"].tolist() == pytest.approx([10.1, 9.9])
    assert result.costs["slippage"].tolist() == pytest.approx([0, 500e3, 500e3])
    assert result.equity[-1] == pytest.approx(99e6)


@pytest.mark.parametrize(
    ("price", "exchange", "first", "buy"),
    [
        (9.9, "HOSE", "2023-06-05", 9.905),
        (20.0, "HOSE", "2023-06-05", 20.025),
        (20.0, "HOSE", "2016-06-06", 20.05),
        (60.0, "HOSE", "2016-06-06", 60.25),
        (60.0, "HNX", "2016-06-06", 60.05),
        # Off the tick of 0.05: up to 20.05 first.
        (20.02, "HOSE", "2023-06-05", 20.075),
    ],
)
def test_ticks_cost_half_a_tick_by_venue_price_and_date(
    price: float, exchange: str, first: str, buy: float
) -> None:
    bars = market([price] * 2, exchange=exchange, first=first)
    result = run(bars, weights(0.5, NO), only(ticks=True))
    assert result.orders["price"].tolist() == pytest.approx([buy])


def test_slippage_stops_at_the_limit() -> None:
    # Ceiling 10.7, opens at 10.65: 2 % more would be 10.863.
    bars = market([10, 10.6], open=[10, 10.65])
    result = run(bars, weights(0.5, NO), only(slippage=0.02, bands=True))
    assert result.orders["price"].tolist() == pytest.approx([10.7])


@pytest.mark.parametrize(("first", "lot_filled"), [("2020-06-01", 3330), ("2023-06-05", 3300)])
def test_lots_by_date(first: str, lot_filled: float) -> None:
    bars = market([15.0] * 2, first=first)
    result = run(bars, weights(0.5, NO), only(lots=True))
    # 50 million / 15,000 = 3,333.3.
    assert result.orders["filled"].tolist() == [lot_filled]
    assert reasons(result) == ["LOT"]
    assert result.unfilled.empty


def test_a_locked_ceiling_cannot_be_bought_but_sold() -> None:
    up = market([10, 10.7, 10.7], high=[10, 10.7, 10.8])
    result = run(up, weights(0.5, 0.5, NO), only(bands=True))
    assert reasons(result) == ["CEILING", "FILLED"]
    assert result.unfilled["filled"].tolist() == [0]
    late = market([10, 10, 10.7])
    assert held(run(late, weights(0.5, 0.0, NO), only(bands=True))) == [0, 5000, 0]


def test_a_locked_floor_cannot_be_sold_but_bought() -> None:
    down = market([10, 10, 9.3])
    result = run(down, weights(0.5, 0.0, NO), only(bands=True))
    assert held(result) == [0, 5000, 5000]
    assert reasons(result) == ["FILLED", "FLOOR"]
    assert reasons(run(market([10, 9.3]), weights(0.5, NO), only(bands=True))) == ["FILLED"]


def test_the_average_reference_decides_whether_upcom_is_locked() -> None:
    # Average 10: ceiling 11.5. Yesterday's close of 11 would allow 12.6 and hide the lock.
    bars = market(
        [11, 11.5],
        exchange="UPCOM",
        volume=1000,
        low=[9, 11.5],
        value=[10e6, 11.5e6],
    )
    both = only(bands=True, average_reference=True)
    assert reasons(run(bars, weights(0.5, NO), both)) == ["CEILING"]
    assert reasons(run(bars, weights(0.5, NO), only(bands=True))) == ["FILLED"]


def test_the_lowered_reference_decides_whether_an_ex_date_is_locked() -> None:
    # 20 / 1.05 = 19.05: floor 17.75. Against 20 it would be 18.6, and 17.75 beyond any limit.
    bars = market([20, 20, 17.75], factor=[1, 1, 1.05])
    both = only(bands=True, ex_reference=True)
    assert reasons(run(bars, weights(0.5, 0.0, NO), both)) == ["FILLED", "FLOOR"]
    assert reasons(run(bars, weights(0.5, 0.0, NO), only(bands=True))) == ["FILLED", "FILLED"]


def test_no_volume_or_no_bar_is_no_trade() -> None:
    for gone in (
        market([10, 10, 10], volume=[1e6, 0, 1e6]),
        market([10, NO, 10], volume=[1e6, NO, 1e6]),
    ):
        result = run(gone, weights(0.5, 0.5, NO), only(suspensions=True))
        assert held(result) == [0, 0, 5000]
        assert reasons(result) == ["SUSPENDED", "FILLED"]
        assert held(run(gone, weights(0.5, 0.5, NO), only())) == [0, 5000, 5000]


def test_what_never_traded_has_no_price() -> None:
    bars = market([[10, NO], [10, NO], [10, 5]], volume=[[1e6, NO]] * 2 + [[1e6, 1e6]])
    result = run(bars, weights([0, 0.5], [NO, NO], [NO, NO]), only())
    assert reasons(result) == ["NO_PRICE"]
    assert result.equity.tolist() == [100e6] * 3


def test_an_open_of_zero_is_no_price() -> None:
    bars = market([10, 10], open=[10, 0], low=[10, 10])
    assert reasons(run(bars, weights(0.5, NO), only())) == ["NO_PRICE"]


def test_participation() -> None:
    bars = market([10.0] * 4, volume=20_000)
    result = run(bars, weights(0.5, 0.5, 0.5, NO), only(participation=0.1))
    # A tenth of 20,000 a session; the last thousand on the third.
    assert held(result) == [0, 2000, 4000, 5000]
    assert reasons(result) == ["PARTICIPATION", "PARTICIPATION", "FILLED"]


def test_too_little_cash_cuts_all_buys_alike() -> None:
    bars = market([[10, 10], [20, 10]], open=[[10, 10], [20, 10]])
    result = run(bars, weights([0.5, 0.5], [NO, NO]), only())
    # 5,000 shares each: 100 + 50 million for 100.
    assert result.orders["filled"].tolist() == pytest.approx([10_000 / 3, 10_000 / 3])
    assert reasons(result) == ["CASH", "CASH"]
    assert result.cash[-1] == pytest.approx(0, abs=1e-3)


def test_a_blocked_buy_keeps_its_cash_reserved() -> None:
    bars = market([[10, 10], [10.7, 10]], high=[[10, 10], [10.7, 10]])
    result = run(bars, weights([0.5, 0.5], [NO, NO]), only(bands=True, fee=0.01))
    # 53.5 + 50 million and 1 % are asked; the share that is not locked gets its part only.
    assert reasons(result) == ["CEILING", "CASH"]
    assert result.orders["filled"].tolist() == pytest.approx([0, 5000 / (1.035 * 1.01)])


@pytest.mark.parametrize(
    ("first", "price", "sold_on"),
    [
        ("2015-06-01", "open", 5),  # bought on 1, usable on 1 + 4
        ("2016-06-01", "open", 4),
        ("2016-06-01", "close", 4),
        ("2022-08-23", "open", 4),  # bought on the 24th, the last day of the old cycle
        ("2022-08-24", "open", 4),
        ("2022-08-23", "close", 4),
        ("2022-08-24", "close", 3),  # bought on the 25th, at noon of T+2: sold at that close
        ("2023-06-05", "open", 4),
    ],
)
def test_shares_can_be_sold_once_settled(first: str, price: str, sold_on: int) -> None:
    bars = market([10.0] * 7, first=first)
    targets = weights(0.5, *[0.0] * 6)
    result = run(bars, targets, only(settle_shares=True, price=price))
    assert held(result) == [0] + [5000] * (sold_on - 1) + [0] * (7 - sold_on)
    assert reasons(result) == ["FILLED"] + ["UNSETTLED"] * (sold_on - 2) + ["FILLED"]


def test_only_the_settled_part_is_sold() -> None:
    bars = market([10.0] * 6)
    result = run(bars, weights(0.2, NO, 0.5, 0.0, NO, NO), only(settle_shares=True))
    # 2,000 bought on session 1, 3,000 on session 3; on session 4 only the first are there.
    assert held(result) == [0, 2000, 2000, 5000, 3000, 3000]
    assert reasons(result)[-1] == "UNSETTLED"


def test_proceeds_can_be_spent_once_settled() -> None:
    bars = market([[10.0, 10.0]] * 8)
    swap = [0.0, 1.0]
    targets = weights([1.0, 0.0], [NO, NO], swap, swap, swap, swap, [NO, NO], [NO, NO])
    result = run(bars, targets, only(settle_cash=True))
    # A is sold on session 3; its 100 million arrive on session 6.
    assert result.positions[:, 0].tolist() == [0, 10_000, 10_000, 0, 0, 0, 0, 0]
    assert result.positions[:, 1].tolist() == [0, 0, 0, 0, 0, 0, 10_000, 10_000]
    assert result.settled.tolist() == [100e6, 0, 0, 0, 0, 0, 0, 0]
    assert result.cash.tolist() == [100e6, 0, 0, 100e6, 100e6, 100e6, 0, 0]
    assert result.equity.tolist() == [100e6] * 8
    free = run(bars, targets, only())
    assert free.positions[3].tolist() == [0, 10_000]


def test_a_split_is_more_shares_and_no_wealth() -> None:
    bars = market([10, 10, 5, 5], factor=[1, 1, 2, 1])
    result = run(bars, weights(0.5, NO, NO, NO), only())
    assert held(result) == [0, 5000, 10_000, 10_000]
    assert result.equity.tolist() == pytest.approx([100e6] * 4)


def test_a_dividend_is_reinvested_and_its_fractions_are_paid_out() -> None:
    # One thousand on a share of 30: factor 30 / 29, the price opens at 29.
    bars = market([30, 30, 29], factor=[1, 1, 30 / 29])
    result = run(bars, weights(0.9, NO, NO), only(lots=True))
    # 3,000 shares become 3,103.4, the 0.448 are 13,000 VND.
    assert held(result) == [0, 3000, 3103]
    assert result.cash[-1] == pytest.approx(10e6 + (3000 * 30 / 29 - 3103) * 29e3)
    assert result.equity.tolist() == pytest.approx([100e6] * 3)


def test_awaited_shares_are_split_too() -> None:
    bars = market([10, 10, 5, 5, 5], factor=[1, 1, 2, 1, 1])
    result = run(bars, weights(0.5, NO, NO, 0.0, NO), only(settle_shares=True, lots=True))
    assert held(result) == [0, 5000, 10_000, 10_000, 0]


def test_an_order_over_an_ex_date_is_in_new_shares() -> None:
    bars = market([10, 5, 5], factor=[1, 2, 1])
    result = run(bars, weights(0.5, NO, NO), only())
    assert held(result) == [0, 10_000, 10_000]


@pytest.mark.parametrize(
    ("exchange", "first", "left"),
    [("HOSE", "2022-06-06", 3), ("HOSE", "2023-06-05", 0), ("HNX", "2015-06-01", 0)],
)
def test_the_odd_rest_goes_where_odd_lots_trade(exchange: str, first: str, left: float) -> None:
    bars = market([30, 30, 29, 29], factor=[1, 1, 30 / 29, 1], exchange=exchange, first=first)
    result = run(bars, weights(0.9, NO, 0.0, NO), only(lots=True))
    assert held(result) == [0, 3000, 3103, left]
    part = run(bars, weights(0.9, NO, 0.5, NO), only(lots=True))
    assert part.orders["filled"].iloc[-1] % 100 == 0


def test_impossible_targets_are_refused() -> None:
    bars = market([[10.0, 10.0]] * 2)
    with pytest.raises(DataError, match="together"):
        run(bars, weights([0.6, 0.6], [NO, NO]), only())
    with pytest.raises(DataError, match="at least 0"):
        run(bars, weights([-0.1, 0.6], [NO, NO]), only())
    with pytest.raises(DataError, match="shape"):
        run(bars, weights([0.5]), only())
    with pytest.raises(UsageError, match="capital"):
        simulate(bars, weights([0.5, 0], [NO, NO]), capital=0.0)


@pytest.mark.parametrize("wrong", [{"fee": -0.1}, {"participation": 0.0}, {"price": "vwap"}])
def test_impossible_rules_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        TradingRules(**wrong)
