"""Index rows of price files: any of the formats, and faults that have a message."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from vnquant.errors import DataError
from vnquant.market.index import index_levels

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
