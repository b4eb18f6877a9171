"""Index rows of price files: any of the formats, and faults that have a message."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vnquant.errors import DataError
from vnquant.market.index import index_levels, level_on, required_levels

ROWS = pd.DataFrame(
    {
        "symbol": ["VNINDEX", "FPT", "VNINDEX"],
        "date": ["2022-01-05", "2022-01-04", "2022-01-04"],
        "close": [1510.5, 90.0, 1500.0],
    }
)


@pytest.mark.parametrize("kind", ["parquet", "csv", "folder"])
def test_levels_come_out_rising_whatever_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("prices.parquet" if kind == "parquet" else "prices.csv")
    ROWS.to_parquet(path) if kind == "parquet" else ROWS.to_csv(path, index=False)
    levels = index_levels(tmp_path if kind == "folder" else path)
    assert levels["close"].tolist() == [1500.0, 1510.5]
    assert levels["date"].is_monotonic_increasing


def test_files_without_an_index_give_none(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    ROWS[ROWS["symbol"] == "FPT"].to_csv(path, index=False)
    assert index_levels(path).empty
    ROWS.drop(columns="symbol").to_csv(path, index=False)
    assert index_levels(path).empty
    assert index_levels(None).empty


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    ROWS.assign(date="yesterday week").to_csv(path, index=False)
    with pytest.raises(DataError, match="VNINDEX cannot be read"):
        index_levels(path)
    path.with_suffix(".parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="VNINDEX cannot be read"):
        index_levels(path.with_suffix(".parquet"))


def test_the_newest_level_counts_until_it_is_old() -> None:
    levels = pd.DataFrame(
        {"date": pd.to_datetime(["2022-01-04", "2022-01-06"]), "close": [1500.0, 1520.0]}
    )
    days = ["2022-01-03", "2022-01-04", "2022-01-05", "2022-01-06", "2022-01-21", "2022-01-22"]
    found = level_on(levels, np.array(days, dtype="datetime64[D]"))
    np.testing.assert_array_equal(found, [np.nan, 1500.0, 1500.0, 1520.0, 1520.0, np.nan])


def test_who_needs_the_index_is_told_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    ROWS.to_csv(path, index=False)
    levels = required_levels(path, dt.date(2022, 1, 5), None)
    assert levels["close"].tolist() == [1510.5]
    assert required_levels(path, None, dt.date(2022, 1, 4))["close"].tolist() == [1500.0]
    with pytest.raises(DataError, match="there are no rows of it"):
        required_levels(path, dt.date(2023, 1, 1), None)
    with pytest.raises(DataError, match="need VNINDEX"):
        required_levels(None, None, None)
    ROWS.assign(close=[1510.5, 90.0, 0.0]).to_csv(path, index=False)
    with pytest.raises(DataError, match="on 2022-01-04 is not positive"):
        required_levels(path, None, None)
