"""Levels of a market index, from the rows of a price file that are not shares."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq

from vnquant.errors import DataError

COLUMNS = ("symbol", "date", "close")


def index_levels(prices: Path | None, name: str = "VNINDEX") -> pd.DataFrame:
    """Columns date (datetime64[s]) and close (points), rising; empty where there are no such rows.

    Args:
        prices: what ``--prices`` names: a parquet or CSV file, or a directory of them; None: none.
        name: symbol of the index.

    Files without the columns `COLUMNS` are passed over: a benchmark is an extra, and the same files
    have already been checked as prices.

    Raises:
        DataError: a file cannot be read, or its dates or levels cannot.
    """
    try:
        return _levels(prices, name)
    except (pa.ArrowException, ValueError, TypeError, OSError) as error:
        raise DataError(
            f"{name} cannot be read ({str(error).splitlines()[0]})",
            where=str(prices),
            fix="write dates as 2021-12-31 and levels as numbers",
        ) from error


def _levels(prices: Path | None, name: str) -> pd.DataFrame:
    files = [] if prices is None else sorted(prices.iterdir()) if prices.is_dir() else [prices]
    parts = [part for path in files if (part := _rows(path, name)) is not None]
    if not parts:
        return pd.DataFrame(
            {"date": pd.Series(dtype="datetime64[s]"), "close": pd.Series(dtype=float)}
        )
    levels = pd.concat(parts, ignore_index=True)
    levels["date"] = pd.to_datetime(levels["date"]).astype("datetime64[s]")
    levels["close"] = levels["close"].astype(float)
    return levels.drop_duplicates("date").sort_values("date", ignore_index=True)


def _rows(path: Path, name: str) -> pd.DataFrame | None:
    kind = path.suffix.lower()
    if kind == ".parquet":
        if not set(COLUMNS) <= set(pq.read_schema(path).names):
            return None
        table = pq.read_table(path, columns=list(COLUMNS), filters=[("symbol", "==", name)])
    elif kind == ".csv":
        table = pa.csv.read_csv(path)
        if not set(COLUMNS) <= set(table.column_names):
            return None
        table = table.filter(pa.compute.equal(table["symbol"], name))
    else:
        return None
    frame: pd.DataFrame = table.select(["date", "close"]).to_pandas()
    return frame if len(frame) else None
