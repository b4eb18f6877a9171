"""Reference prices and limits by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backtest.cases import NO, market, only
from vnquant.backtest.limits import RESUMED_AFTER, Source, limits, locked_down, locked_up
from vnquant.backtest.rules import TradingRules

ALL = TradingRules()


def test_hose_takes_the_close_before_and_the_first_session_has_no_limits() -> None:
    at = limits(market([24.15, 24.15]), ALL)
    assert at.source[:, 0].tolist() == [Source.NONE, Source.CLOSE]
    assert np.isnan(at.reference[0, 0])
    assert (at.ceiling[0, 0], at.floor[0, 0]) == (np.inf, 0.0)
    # 24.15 x 1.07 = 25.8405 and x 0.93 = 22.4595 on ticks of 0.05.
    assert (at.ceiling[1, 0], at.floor[1, 0]) == pytest.approx((25.8, 22.5))


def test_upcom_takes_the_average_before() -> None:
    # 1,000 shares for 12.34 million: 12.34 on average, to 12.3; 15 %: 14.145 and 10.455.
    bars = market(
        [13.0, 13.0],
        exchange="UPCOM",
        volume=1000,
        high=[13.2, 13.0],
        low=[11.9, 13.0],
        value=[12.34e6, 13e6],
    )
    at = limits(bars, ALL)
    assert at.source[1, 0] == Source.AVERAGE
    assert at.reference[1, 0] == pytest.approx(12.3)
    assert (at.ceiling[1, 0], at.floor[1, 0]) == pytest.approx((14.1, 10.5))
    plain = limits(bars, only(bands=True))
    assert plain.source[1, 0] == Source.CLOSE
    assert (plain.ceiling[1, 0], plain.floor[1, 0]) == pytest.approx((14.9, 11.1))


@pytest.mark.parametrize("value", [np.nan, 0.0, 12.34e9])
def test_without_an_honest_average_upcom_falls_back_to_the_close_and_says_so(value: float) -> None:
    bars = market([13.0, 13.0], exchange="UPCOM", volume=1000, value=[value, 13e6])
    at = limits(bars, ALL)
    assert at.source[1, 0] == Source.CLOSE_FOR_AVERAGE
    assert at.reference[1, 0] == 13.0


@pytest.mark.parametrize(
    ("first", "source"),
    [("2012-03-05", Source.AVERAGE), ("2012-04-03", Source.CLOSE), ("2023-06-05", Source.CLOSE)],
)
def test_hnx_changed_its_reference_in_2012(first: str, source: Source) -> None:
    assert limits(market([13.0] * 2, exchange="HNX", first=first), ALL).source[1, 0] == source


def test_the_average_of_the_last_session_with_trade_stands() -> None:
    bars = market(
        [13.0, 13.0, 13.0],
        exchange="UPCOM",
        volume=[1000, 0, 1000],
        low=[12.0, 13, 13],
        value=[12.5e6, 0, 13e6],
    )
    assert limits(bars, ALL).reference[2, 0] == pytest.approx(12.5)


def test_on_an_ex_date_the_reference_is_lowered_and_put_on_a_tick() -> None:
    # 30.5 / 1.05 = 29.0476, to 29.05; 7 %: 31.0835 and 27.0165.
    bars = market([30.5, 29.0], factor=[1, 1.05])
    at = limits(bars, ALL)
    assert at.reference[1, 0] == pytest.approx(29.05)
    assert (at.ceiling[1, 0], at.floor[1, 0]) == pytest.approx((31.05, 27.05))
    assert limits(bars, only()).reference[1, 0] == 30.5


def test_a_factor_while_suspended_lowers_the_reference_too() -> None:
    bars = market([30.0, NO, 15.0], volume=[1e6, NO, 1e6], factor=[1, 2, 1])
    assert limits(bars, ALL).reference[2, 0] == 15.0


def test_bars_that_contradict_the_limits_lift_them() -> None:
    # The ceiling is 25.8: a tick more may be rounding, two are another venue.
    near = limits(market([24.15, 25.0], high=[24.15, 25.85]), ALL)
    beyond = limits(market([24.15, 25.0], high=[24.15, 25.9]), ALL)
    assert near.source[1, 0] == Source.CLOSE
    assert beyond.source[1, 0] == Source.CONTRADICTED
    assert (beyond.ceiling[1, 0], beyond.floor[1, 0]) == (np.inf, 0.0)


@pytest.mark.parametrize(("idle", "ceiling"), [(RESUMED_AFTER, 10.7), (RESUMED_AFTER + 1, 12.0)])
def test_after_a_long_pause_the_band_is_that_of_a_first_session(idle: int, ceiling: float) -> None:
    # 7 % of 10, and 20 %.
    volume = [1e6] + [0.0] * idle + [1e6]
    at = limits(market([10.0] * (idle + 2), volume=volume), ALL)
    assert at.ceiling[-1, 0] == pytest.approx(ceiling)


def test_locked_means_from_end_to_end_but_at_the_close_the_close_counts() -> None:
    closed_up = market([10.0, 10.7], open=[10, 10.5])  # trades from 10.5 to the ceiling 10.7
    whole = market([10.0, 10.7])
    for bars, at_open in ((closed_up, False), (whole, True)):
        at = limits(bars, ALL)
        assert locked_up(bars, at, "open")[1, 0] == at_open
        assert locked_up(bars, at, "close")[1, 0]
        assert not locked_down(bars, at, "open")[1, 0]
    down = market([10.0, 9.3])
    assert locked_down(down, limits(down, ALL), "open")[1, 0]
    assert not locked_up(down, limits(down, ALL), "open")[1, 0]
    nearly = market([10.0, 9.31])
    assert not locked_down(nearly, limits(nearly, ALL), "close")[1, 0]
    touching = market([10.0, 9.5], low=[10.0, 9.3])  # fell to the floor and came back
    assert not locked_down(touching, limits(touching, ALL), "open")[1, 0]
