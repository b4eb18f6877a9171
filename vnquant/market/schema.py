"""What a bar must look like before any judgement about it: the pandera schema of raw bars."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pandera.pandas as pa

from vnquant.errors import DataError

PRICES = ("open", "high", "low", "close", "adj_close")
COLUMNS = ("symbol", "exchange", "date", *PRICES, "volume", "value", "change_text")

UNIT_LIMIT = 2000.0
"""Thousand VND. No share's median price comes near; a file in VND exceeds it at once."""


def _price(**more: bool) -> pa.Column:
    return pa.Column(float, pa.Check(lambda s: np.isfinite(s) & (s >= 0), name="finite, not negative"), **more)


RAW = pa.DataFrameSchema(
    {
        "symbol": pa.Column(str, pa.Check.str_matches(r"^[A-Z0-9]{1,10}$")),
        "exchange": pa.Column(str, pa.Check.isin(["HOSE", "HNX", "UPCOM"])),
        "date": pa.Column("datetime64[s]"),
        **{name: _price() for name in PRICES},
        "volume": _price(),
        "value": pa.Column(float, pa.Check.ge(0), nullable=True),
        "change_text": pa.Column(nullable=True),
    },
    unique=["symbol", "date"],
    strict=True,
)


def check(raw: pd.DataFrame, *, where: str, today: np.datetime64 | None = None) -> pd.DataFrame:
    """Validate raw bars.

    Args:
        raw: bars in the columns `COLUMNS`; prices in thousand VND, volume in shares.
        where: what to call the origin in messages.
        today: no bar may be later; None: the clock's date in Viet Nam.

    Raises:
        DataError: with the first offending column, symbol, date and value.
    """
    if raw.empty:
        raise DataError("holds no bars", where=where, fix="check the file, the symbols and the dates")
    _no_duplicates(raw, where)
    try:
        RAW.validate(raw)
    except pa.errors.SchemaError as error:
        raise _explained(error, raw, where) from error
    _no_future(raw, where, today)
    _right_units(raw, where)
    return raw


def _at(raw: pd.DataFrame, row: int) -> str:
    bar = raw.iloc[row]
    return f"{bar['symbol']} {bar['date']:%Y-%m-%d}"


def _no_duplicates(raw: pd.DataFrame, where: str) -> None:
    twice = raw.duplicated(["symbol", "date"]).to_numpy()
    if twice.any():
        raise DataError(
            f"{_at(raw, int(twice.argmax()))} appears more than once ({int(twice.sum())} such rows)",
            where=where,
            fix="keep one row for each symbol and day",
        )


def _explained(error: pa.errors.SchemaError, raw: pd.DataFrame, where: str) -> DataError:
    cases, column = error.failure_cases, getattr(error.schema, "name", None) or "table"
    if isinstance(cases, pd.DataFrame) and len(cases) and cases["index"].notna().any():
        case = cases.iloc[0]
        what = f"{column} is {case['failure_case']!r} for {_at(raw, int(case['index']))}"
        if len(cases) > 1:
            what += f" (and {len(cases) - 1} more rows)"
    else:
        what = str(error).splitlines()[0]
    return DataError(what, where=where, fix=f"correct column {column} at the source")


def _no_future(raw: pd.DataFrame, where: str, today: np.datetime64 | None) -> None:
    if today is None:
        today = np.datetime64(pd.Timestamp.now("Asia/Ho_Chi_Minh").date(), "D")
    late = raw["date"].to_numpy().astype("datetime64[D]") > today
    if late.any():
        raise DataError(
            f"{_at(raw, int(late.argmax()))} lies after today ({today}), as do {int(late.sum())} rows",
            where=where,
            fix="check the date column's format (day and month swapped?)",
        )


def _right_units(raw: pd.DataFrame, where: str) -> None:
    median = raw.groupby("symbol", observed=True)["close"].median()
    high = median[median > UNIT_LIMIT]
    if len(high):
        raise DataError(
            f"median close of {high.index[0]} is {high.iloc[0]:,.0f}, which cannot be thousand VND",
            where=where,
            fix="divide open, high, low, close and adj_close by 1000 (96,100 VND is 96.1)",
        )
    # value / volume is a price in VND: a factor of 1000 shows which of the two is in other units.
    traded = (raw["volume"] > 0) & (raw["value"] > 0) & (raw["close"] > 0)
    rows = raw.loc[traded, ["symbol", "close", "volume", "value"]]
    ratio = rows["value"] / rows["volume"] / (rows["close"] * 1000.0)
    typical = ratio.groupby(rows["symbol"], observed=True).median()
    wrong = typical[(typical < 0.02) | (typical > 50.0)]
    if len(wrong):
        raise DataError(
            f"value / volume of {wrong.index[0]} is {wrong.iloc[0]:.3g} times its close",
            where=where,
            fix="give prices in thousand VND, volume in shares and value in VND",
        )
