"""Rewritten histories: what counts as a change, and which kind it is."""

from __future__ import annotations

import pandas as pd
import pytest

from vnquant.market.collect.changes import find_change


@pytest.fixture
def bars(two_years: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return two_years["FPT"].tail(15).reset_index(drop=True)


def changed(bars: pd.DataFrame, row: int, column: str, value: float) -> pd.DataFrame:
    out = bars.copy()
    out.loc[row, column] = value
    return out


def test_the_same_bars_and_later_ones_are_no_change(bars: pd.DataFrame) -> None:
    assert find_change(bars, bars.copy(), bars["date"][0]) is None
    assert find_change(bars.iloc[:-3], bars, bars["date"][0]) is None
    reworded = bars.assign(change_text="other words")
    assert find_change(bars, reworded, bars["date"][0]) is None


def test_a_rebased_history_is_told_apart_from_a_correction(bars: pd.DataFrame) -> None:
    half = find_change(bars, bars.assign(adj_close=bars["adj_close"] / 2), bars["date"][0])
    assert half is not None
    assert (half.kind, half.days, half.compared) == ("readjusted", 15, 15)
    other = find_change(bars, changed(bars, 4, "volume", 1.0), bars["date"][0])
    assert other is not None
    assert (other.kind, other.days) == ("corrected", 1)
    day = f"{bars['date'][4]:%Y-%m-%d}"
    was = f"{bars['volume'][4]:.10g}"
    assert other.example == f"{day} volume was {was}, is 1"


@pytest.mark.parametrize("side", ["stored", "served"])
def test_a_day_on_one_side_alone_is_a_correction(side: str, bars: pd.DataFrame) -> None:
    gap = bars.drop(index=5).reset_index(drop=True)
    pair = (bars, gap) if side == "stored" else (gap, bars)
    found = find_change(*pair, bars["date"][0])
    assert found is not None
    assert found.kind == "corrected"
    assert found.example == f"{bars['date'][5]:%Y-%m-%d} is only {side}"


def test_days_before_the_question_are_not_compared(bars: pd.DataFrame) -> None:
    later = bars.iloc[5:].reset_index(drop=True)
    assert find_change(bars, later, later["date"][0]) is None


def test_a_value_rounded_to_billions_is_no_change(bars: pd.DataFrame) -> None:
    rounded = bars.assign(value=(bars["value"] / 1e9).round(2) * 1e9)
    assert find_change(bars, rounded, bars["date"][0]) is None
    assert find_change(bars, bars.assign(value=bars["value"] * 1.5), bars["date"][0]) is not None
