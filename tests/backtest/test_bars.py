"""Spreading raw bars over sessions and symbols."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.backtest.cases import NO, market
from vnquant.backtest.bars import Bars, carried, from_raw, last_known
from vnquant.errors import DataError

DATES = np.array(["2023-06-05", "2023-06-06", "2023-06-07"], dtype="datetime64[D]")


def raw() -> pd.DataFrame:
    """A splits 2:1 on the 7th after a day without a bar; B pays one on 30 on the 6th."""
    rows = [
        ("A", "HOSE", "2023-06-05", 20.0, 10.0),
        ("A", "HOSE", "2023-06-07", 10.0, 10.0),
        ("B", "UPCOM", "2023-06-04", 30.0, 29.0),
        ("B", "UPCOM", "2023-06-05", 30.0, 29.0),
        ("B", "UPCOM", "2023-06-06", 29.0, 29.0),
        ("B", "UPCOM", "2023-06-07", 29.5, 29.5),
    ]
    frame = pd.DataFrame(rows, columns=["symbol", "exchange", "date", "close", "adj_close"])
    frame["date"] = pd.to_datetime(frame["date"]).astype("datetime64[s]")
    for name in ("open", "high", "low"):
        frame[name] = frame["close"]
    frame["volume"] = 1000.0
    return frame.assign(value=1e6 * frame["close"])


def test_every_bar_lands_in_its_cell_and_gaps_stay_open() -> None:
    bars = from_raw(raw(), DATES, ["B", "A"])
    assert bars.symbols == ("B", "A")
    assert bars.exchange[0].tolist() == ["UPCOM", "HOSE"]
    assert bars.close[:, 0].tolist() == [30, 29, 29.5]
    assert np.isnan(bars.close[1, 1])
    assert bars.factor[:, 1].tolist() == [1, 1, 2]
    assert bars.factor[:, 0] == pytest.approx([1, 30 / 29, 1])
    assert bars.average[:, 0] == pytest.approx(bars.close[:, 0])


def test_a_symbol_without_bars_is_named() -> None:
    with pytest.raises(DataError, match="no bar of XXX"):
        from_raw(raw(), DATES, ["A", "XXX"])


def test_arrays_that_do_not_fit_are_refused() -> None:
    bars = market([10.0, 10.0])
    with pytest.raises(DataError, match="shape"):
        replace(bars, open=np.zeros((3, 1)))
    with pytest.raises(DataError, match="factor"):
        replace(bars, factor=np.zeros((2, 1)))
    with pytest.raises(DataError, match="rise"):
        replace(bars, dates=bars.dates[::-1])


def test_the_average_needs_value_volume_and_to_lie_in_the_range() -> None:
    bars = market(
        [10.0] * 5, volume=[100, 0, 100, 100, 100], value=[1e6, 1e6, NO, 1.021e6, 1.019e6]
    )
    assert bars.average[:, 0].tolist() == pytest.approx([10, NO, NO, NO, 10.19], nan_ok=True)


def test_what_is_known_is_carried_forward_in_todays_shares() -> None:
    values = np.array([[NO], [8.0], [NO], [NO], [6.0]])
    factor = np.array([[1.0], [1], [2], [1], [1]])
    assert last_known(values)[:, 0].tolist() == pytest.approx([NO, 8, 8, 8, 6], nan_ok=True)
    assert carried(values, factor)[:, 0].tolist() == pytest.approx([NO, NO, 4, 4, 4], nan_ok=True)
    assert isinstance(market([1.0]), Bars)
