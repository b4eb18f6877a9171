"""Levels of a market index, from the rows of a price file that are not shares."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq

from vnquant.errors import DataError

COLUMNS = ("symbol", "date", "close")

MOST_DAYS = 15
"""A level counts until it is so many days old. From 2009 to 2023 two levels were never more than 11
days apart (a new year), and VNINDEX lacks two sessions that HNX had (HOSE was halted in 2018)."""


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


def level_on(levels: pd.DataFrame, dates: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    """The newest level on or before each date, float64; NaN where there is none, or an old one.

    Args:
        levels: as `index_levels` gives them.
        dates: datetime64[D].
    """
    days = levels["date"].to_numpy().astype("datetime64[D]")
    place = np.searchsorted(days, dates, side="right") - 1
    known = place >= 0
    known[known] = dates[known] - days[place[known]] <= np.timedelta64(MOST_DAYS, "D")
    found = np.full(len(dates), np.nan)
    found[known] = levels["close"].to_numpy()[place[known]]
    return found


def required_levels(
    prices: Path | None, start: dt.date | None, end: dt.date | None
) -> pd.DataFrame:
    """`index_levels` between two dates (inclusive), for what cannot do without them.

    Raises:
        DataError: there are none, or one is not positive.
    """
    levels = index_levels(prices)
    first, last = (pd.Timestamp(day) if day else None for day in (start, end))
    if first is not None:
        levels = levels[levels["date"] >= first]
    if last is not None:
        levels = levels[levels["date"] <= last]
    levels = levels.reset_index(drop=True)
    bad = levels[~(levels["close"] > 0)]
    if levels.empty or len(bad):
        what = (
            f"its level on {bad['date'].iloc[0]:%Y-%m-%d} is not positive"
            if len(bad)
            else ("there are no rows of it")
        )
        raise DataError(
            f"the features v2 need VNINDEX, and {what}",
            where=str(prices or "simulated prices"),
            fix="add rows with the symbol VNINDEX, its date and close, or use the features v1",
        )
    return levels


def levels_for(
    features: str, prices: Path | None, start: dt.date | None, end: dt.date | None
) -> pd.DataFrame | None:
    """`required_levels` where a set of features needs them; None where it does not."""
    return required_levels(prices, start, end) if features == "v2" else None


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
