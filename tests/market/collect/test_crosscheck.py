"""Two sources about the same days: which disagreements are found, and how they are explained."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from vnquant.market.collect.crosscheck import compare

PRICES = ["open", "high", "low", "close", "adj_close"]


@pytest.fixture
def bars(two_years: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(two_years.values(), ignore_index=True)


def spoiled(bars: pd.DataFrame, symbol: str, row: int, column: str, factor: float) -> pd.DataFrame:
    out = bars.copy()
    at = out.index[out["symbol"] == symbol][row]
    out.loc[at, column] *= factor
    return out


def test_the_same_bars_agree(bars: pd.DataFrame) -> None:
    found = compare(bars, bars.copy())
    assert len(found.disagreements) == 0
    assert set(found.symbols["verdict"]) == {"agree"}
    assert list(found.symbols.index) == ["ACV", "FPT", "PVS"]


@pytest.mark.parametrize(
    ("field", "factor"),
    [("open", 1.02), ("high", 1.02), ("low", 0.98), ("close", 1.02), ("volume", 1.5)],
)
def test_one_wrong_number_is_one_row(bars: pd.DataFrame, field: str, factor: float) -> None:
    other = spoiled(bars, "FPT", 100, field, factor)
    found = compare(bars, other)
    (row,) = found.disagreements.to_dict(orient="records")
    was = bars[bars["symbol"] == "FPT"].iloc[100]
    assert (row["symbol"], row["date"], row["field"]) == ("FPT", was["date"], field)
    assert row["a"] == was[field]
    assert row["b"] == pytest.approx(was[field] * factor)
    assert found.symbols.loc["FPT", "verdict"] == "differ"
    assert found.symbols.loc["PVS", "verdict"] == "agree"


def test_rounding_is_no_disagreement(bars: pd.DataFrame) -> None:
    other = bars.copy()
    other[PRICES] = other[PRICES].round(2)
    other["value"] = (other["value"] / 1e9).round(2) * 1e9
    assert compare(bars, other).disagreements.empty


def test_the_level_of_adjusted_closes_is_no_disagreement_but_their_steps_are(
    bars: pd.DataFrame,
) -> None:
    other = bars.assign(adj_close=bars["adj_close"] * 0.8)
    assert compare(bars, other).disagreements.empty
    missed = bars.copy()
    mine = missed.index[missed["symbol"] == "FPT"]
    missed.loc[mine[:200], "adj_close"] *= 0.9  # an event that the first source does not have
    (row,) = compare(bars, missed).disagreements.to_dict(orient="records")
    assert row["field"] == "adj_step"
    assert row["date"] == bars.loc[mine[200], "date"]
    assert row["difference"] == pytest.approx(1 / 0.9 - 1, abs=0.01)


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_missing_session_shows_the_close_of_the_other(bars: pd.DataFrame, side: str) -> None:
    gone = bars.index[bars["symbol"] == "FPT"][50]
    less = bars.drop(index=gone)
    found = compare(less, bars) if side == "b" else compare(bars, less)
    (row,) = found.disagreements.to_dict(orient="records")
    assert row["field"] == "day"
    assert row[side] == bars.loc[gone, "close"]
    assert pd.isna(row["a" if side == "b" else "b"])
    assert found.symbols.loc["FPT", f"only_{side}"] == 1


def test_another_depth_is_no_disagreement(bars: pd.DataFrame) -> None:
    assert compare(bars, bars[bars["date"] >= "2020-01-01"]).disagreements.empty


def test_units_and_basis_are_told_once_for_a_symbol(bars: pd.DataFrame) -> None:
    dong = bars.copy()
    dong[PRICES] *= 1000.0
    found = compare(bars, dong)
    assert found.disagreements.empty
    assert set(found.symbols["verdict"]) == {"units: b's prices are 1000 times a's"}
    halved = bars.assign(adj_close=bars["adj_close"] / 2)
    adjusted = halved.assign(close=halved["adj_close"])
    assert set(compare(halved, adjusted).symbols["verdict"]) == {
        "basis: b's close is a's adjusted close"
    }
    assert set(compare(adjusted, halved).symbols["verdict"]) == {
        "basis: a's close is b's adjusted close"
    }
    billions = bars.assign(value=bars["value"] / 1e9)
    assert set(compare(bars, billions).symbols["verdict"]) == {
        "units: b's values are 1e-09 times a's"
    }


def test_symbols_of_one_side_and_no_common_day(bars: pd.DataFrame, tmp_path: Path) -> None:
    a = bars[(bars["symbol"] != "ACV") & (bars["date"] < "2020-01-01")]
    b = bars[(bars["symbol"] != "PVS") & (bars["date"] >= "2020-01-01")]
    found = compare(a, b)
    assert (found.only_a, found.only_b) == (["PVS"], ["ACV"])
    assert found.symbols.loc["FPT", "verdict"] == "no common day"
    found.write(tmp_path, "one", "two")
    assert "Only in b: ACV." in (tmp_path / "summary.md").read_text()


def test_the_report_can_be_read_by_people_and_programs(bars: pd.DataFrame, tmp_path: Path) -> None:
    other = spoiled(spoiled(bars, "FPT", 100, "close", 1.02), "PVS", 7, "volume", 2.0)
    compare(bars, other).write(tmp_path, "cafef", "vndirect")
    table = pd.read_csv(tmp_path / "disagreements.csv")
    assert list(table["field"]) == ["close", "volume"]
    assert list(table.columns) == ["symbol", "date", "field", "a", "b", "difference"]
    summary = (tmp_path / "summary.md").read_text()
    assert "3 common symbols" in summary
    assert "| close | 1 | 1 | FPT " in summary
    assert "| ACV |" in summary
