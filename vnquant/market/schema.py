"""What a bar must look like before any judgement about it: the pandera schema of raw bars."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pandera.pandas as pa

from vnquant.errors import DataError

PRICES = ("open", "high", "low", "close", "adj_close")
COLUMNS = ("symbol", "exchange", "date", *PRICES, "volume", "value", "change_text")

UNIT_LIMIT = 2000.0
"""Thousand VND. No share's median price comes near; a file in VND exceeds it at once."""

VALUES_SINCE = np.datetime64("2008-01-01")
"""Vendors give the values of 2000 to 2006 in thousands, so units are judged on later bars."""


def _number(*, nullable: bool = False) -> pa.Column:
    finite = pa.Check(lambda s: np.isfinite(s) & (s >= 0), name="finite and not negative")
    return pa.Column(float, finite, nullable=nullable)


RAW = pa.DataFrameSchema(
    {
        "symbol": pa.Column(str, pa.Check.str_matches(r"^[A-Z0-9]{1,10}$")),
        "exchange": pa.Column(str, pa.Check.isin(["HOSE", "HNX", "UPCOM"])),
        "date": pa.Column("datetime64[s]"),
        **{name: _number() for name in (*PRICES, "volume")},
        "value": _number(nullable=True),
        "change_text": pa.Column(nullable=True),
    },
    strict=True,
)
"""Raw bars: the columns `COLUMNS`, prices in thousand VND, volume in shares, value in VND."""

_FIXES = {
    "symbol": "a ticker has 1 to 10 letters or digits",
    "exchange": "use HOSE, HNX or UPCOM (INDEX for rows that are not shares)",
    "date": "write dates as 2021-12-31, one a row",
}


def check(raw: pd.DataFrame, *, where: str, today: dt.date | None = None) -> pd.DataFrame:
    """Validate raw bars and return them as they are.

    Args:
        raw: bars in the columns `COLUMNS`, sorted by symbol and date.
        where: what to call the origin in messages.
        today: no bar may be later; None: the clock's date in Viet Nam.

    Raises:
        DataError: with the first offending column, symbol, date and value.
    """
    if raw.empty:
        raise DataError(
            "holds no bars", where=where, fix="check the file, the symbols and the dates"
        )
    _complete(raw, where)
    _no_duplicates(raw, where)
    try:
        RAW.validate(raw)
    except pa.errors.SchemaError as error:
        raise _explained(error, raw, where) from error
    _in_order(raw, where)
    _no_future(raw, where, today)
    _right_units(raw, where)
    return raw


def _complete(raw: pd.DataFrame, where: str) -> None:
    for column in COLUMNS:
        if column not in raw.columns:
            raise DataError(f"column {column!r} is missing", where=where, fix="add the column")


def _in_order(raw: pd.DataFrame, where: str) -> None:
    symbol, date = raw["symbol"].to_numpy(dtype=str), raw["date"].to_numpy()
    fine = (symbol[1:] > symbol[:-1]) | ((symbol[1:] == symbol[:-1]) & (date[1:] > date[:-1]))
    if not fine.all():
        raise DataError(
            f"{_at(raw, int(fine.argmin()) + 1)} is out of order",
            where=where,
            fix="sort the bars by symbol and date",
        )


def _at(raw: pd.DataFrame, row: int) -> str:
    bar = raw.iloc[row]
    return f"{bar['symbol']} {pd.Timestamp(bar['date']):%Y-%m-%d}"


def _no_duplicates(raw: pd.DataFrame, where: str) -> None:
    twice = raw.duplicated(["symbol", "date"]).to_numpy()
    if twice.any():
        raise DataError(
            f"{_at(raw, int(twice.argmax()))} appears more than once "
            f"({int(twice.sum()):,} such rows)",
            where=where,
            fix="keep one row for each symbol and day",
        )


def _explained(error: pa.errors.SchemaError, raw: pd.DataFrame, where: str) -> DataError:
    cases, column = error.failure_cases, getattr(error.schema, "name", None) or "table"
    fix = _FIXES.get(column, f"correct column {column} at the source")
    if isinstance(cases, pd.DataFrame) and len(cases) and cases["index"].notna().all():
        row = raw.index.get_loc(cases["index"].iloc[0])
        assert isinstance(row, int)  # bars have a unique index
        more = f" (and {len(cases) - 1:,} more rows)" if len(cases) > 1 else ""
        what = f"column {column} is {cases['failure_case'].iloc[0]!r} for {_at(raw, row)}{more}"
        rule = str(getattr(error.check, "name", None) or "")
        if rule.startswith("finite"):
            what += f", which is not {rule}"
    else:
        what = f"column {column}: " + str(error).splitlines()[0]
    return DataError(what, where=where, fix=fix)


def _no_future(raw: pd.DataFrame, where: str, today: dt.date | None) -> None:
    if today is None:
        today = pd.Timestamp.now("Asia/Ho_Chi_Minh").date()
    late = raw["date"].to_numpy().astype("datetime64[D]") > np.datetime64(today, "D")
    if late.any():
        raise DataError(
            f"column date: {_at(raw, int(late.argmax()))} lies after today ({today}), "
            f"{int(late.sum()):,} such rows in all",
            where=where,
            fix="check the dates (day and month swapped?) and this machine's clock",
        )


def _right_units(raw: pd.DataFrame, where: str) -> None:
    median = raw.groupby("symbol", observed=True)["close"].median()
    high = median[median > UNIT_LIMIT]
    if len(high):
        raise DataError(
            f"the median of column close of {high.index[0]} is {high.iloc[0]:,.0f}, "
            "which cannot be thousand VND",
            where=where,
            fix="divide open, high, low, close and adj_close by 1000 (96,100 VND is 96.1)",
        )
    over = raw["adj_close"].to_numpy() > 50.0 * raw["close"].to_numpy()
    mostly = pd.Series(over).groupby(raw["symbol"].to_numpy()).mean()
    if (mostly > 0.5).any():
        raise DataError(
            f"adj_close of {mostly.idxmax()} is over 50 times its close on most days",
            where=where,
            fix="give adj_close in thousand VND, like close",
        )
    # value / volume is a price in VND: a factor of 1000 shows which of the two is in other units.
    traded = (raw["volume"] > 0) & (raw["value"] > 0) & (raw["close"] > 0)
    rows = raw.loc[traded & (raw["date"] >= VALUES_SINCE), ["symbol", "close", "volume", "value"]]
    ratio = rows["value"] / rows["volume"] / (rows["close"] * 1000.0)
    typical = ratio.groupby(rows["symbol"], observed=True).median()
    wrong = typical[(typical < 0.02) | (typical > 50.0)]
    if len(wrong):
        raise DataError(
            f"value / volume of {wrong.index[0]} is typically {wrong.iloc[0]:.3g} times its close",
            where=where,
            fix="give prices in thousand VND, volume in shares and value in VND",
        )
