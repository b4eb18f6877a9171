"""Prices from disk: a parquet or CSV file, or a directory of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from vnquant.errors import DataError
from vnquant.market.schema import COLUMNS, PRICES, check
from vnquant.market.universe import VN102, check_known

SUFFIXES = (".parquet", ".csv")
OPTIONAL = ("exchange", "value", "change_text", "symbol")
INDEX = "INDEX"  # rows of this exchange are indices, not shares


class PriceFolder:
    """A file or directory of bars.

    A file without a symbol column holds one symbol, named by the file: ``FPT.csv``. Without an
    exchange column the exchange is looked up in the package's universe.
    """

    name = "folder"

    def __init__(self, path: Path, *, today: dt.date | None = None) -> None:
        self.path = Path(path)
        self._today = today

    @cached_property
    def _files(self) -> list[Path]:
        if not self.path.exists():
            raise DataError("does not exist", where=str(self.path), fix="check the path of --prices")
        if self.path.is_file():
            files = [self.path]
        else:
            files = sorted(p for p in self.path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not files or files[0].suffix.lower() not in SUFFIXES:
            raise DataError(
                "holds no parquet or CSV file", where=str(self.path), fix="name files *.parquet or *.csv"
            )
        return files

    def known_symbols(self) -> Mapping[str, str]:
        known: dict[str, str] = {}
        for path in self._files:
            table = _read(path, ("symbol", "exchange"), None)
            names = _symbols(table, path)
            pairs = pa.table({"s": names, "e": _exchanges(table, names, path)}).group_by(["s", "e"])
            for row in pairs.aggregate([]).to_pylist():
                if row["e"] != INDEX:
                    known[row["s"]] = row["e"]
        return known

    def load(
        self, symbols: Sequence[str] | None, *, start: dt.date | None, end: dt.date | None
    ) -> pd.DataFrame:
        if symbols is not None:
            check_known(symbols, self.known_symbols())
        frames = [f for p in self._files if (f := self._load_file(p, symbols)) is not None]
        raw = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
        if start is not None:
            raw = raw[raw["date"] >= pd.Timestamp(start)]
        if end is not None:
            raw = raw[raw["date"] <= pd.Timestamp(end)]
        raw = raw.sort_values(["symbol", "date"], ignore_index=True)
        today = None if self._today is None else pd.Timestamp(self._today).to_datetime64()
        return check(raw, where=str(self.path), today=today)

    def _load_file(self, path: Path, symbols: Sequence[str] | None) -> pd.DataFrame | None:
        table = _read(path, COLUMNS, symbols)
        missing = [c for c in COLUMNS if c not in table.column_names and c not in OPTIONAL]
        if missing:
            fix = "add the column"
            if missing == ["adj_close"]:
                fix = "add the close adjusted for splits and dividends; returns cannot do without it"
            raise DataError(f"column {missing[0]!r} is missing", where=str(path), fix=fix)
        if not len(table):
            return None
        names = _symbols(table, path)
        columns: dict[str, Any] = {
            "symbol": names,
            "exchange": _exchanges(table, names, path),
            "date": _dates(table["date"], names, path),
        }
        for column in (*PRICES, "volume", "value"):
            if column in table.column_names:
                columns[column] = _numbers(table[column], column, names, path)
            else:
                columns[column] = pa.nulls(len(table), pa.float64())
        text = table["change_text"] if "change_text" in table.column_names else pa.nulls(len(table))
        columns["change_text"] = text.cast(pa.string())
        built = pa.table(columns)
        keep = pc.not_equal(built["exchange"], INDEX)
        if symbols is not None:
            keep = pc.and_(keep, pc.is_in(built["symbol"], pa.array(symbols, pa.string())))
        frame = built.filter(keep).to_pandas()
        frame["date"] = frame["date"].astype("datetime64[s]")
        return frame.astype({"symbol": "str", "exchange": "str"})


def _read(path: Path, columns: Sequence[str], symbols: Sequence[str] | None) -> pa.Table:
    """Those of the columns that the file has; every fault becomes a DataError."""
    try:
        if path.stat().st_size == 0:
            raise DataError("is empty", where=str(path), fix="export the prices again")
        if path.suffix.lower() == ".parquet":
            present = set(pq.read_schema(path).names)
            # A text filter on a column of numbers would fail; the schema check names it better.
            filters = [("symbol", "in", list(symbols))] if symbols and "symbol" in present else None
            return pq.read_table(path, columns=[c for c in columns if c in present], filters=filters)
        # Everything as text: the parser must not guess, and errors can quote the value.
        header = pv.open_csv(path).schema.names
        types = {c: pa.string() for c in header}
        options = pv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
        table = pv.read_csv(path, convert_options=options)
        return table.select([c for c in columns if c in table.column_names])
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, OSError) as error:
        what = str(error).splitlines()[0].strip().rstrip(".")
        raise DataError(
            f"cannot be read as {path.suffix.lstrip('.').lower()} ({what})",
            where=str(path),
            fix="the file may be cut short or of another format: export it again (CSV as UTF-8)",
        ) from error


def _symbols(table: pa.Table, path: Path) -> pa.ChunkedArray:
    if "symbol" in table.column_names:
        return pc.utf8_upper(pc.utf8_trim_whitespace(table["symbol"].cast(pa.string())))
    return pa.chunked_array([pa.array([path.stem.upper()] * len(table), pa.string())])


def _exchanges(table: pa.Table, names: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    if "exchange" in table.column_names:
        return pc.utf8_upper(table["exchange"].cast(pa.string()))
    unknown = [s for s in pc.unique(names).to_pylist() if s not in VN102]
    if unknown:
        raise DataError(
            f"the exchange of {unknown[0]} is not known",
            where=str(path),
            fix="add a column exchange with HOSE, HNX or UPCOM",
        )
    looked_up = [VN102[s] for s in names.to_pylist()]
    return pa.chunked_array([pa.array(looked_up, pa.string())])


def _first_bad(good: pa.ChunkedArray, values: pa.ChunkedArray, names: pa.ChunkedArray) -> str:
    row = pc.index(good, pa.scalar(False)).as_py()
    return f"{values[row].as_py()!r} in row {row + 1} ({names[row].as_py()})"


def _dates(values: pa.ChunkedArray, names: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    try:
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            day = pc.utf8_slice_codeunits(values, 0, 10)
            good = pc.fill_null(pc.match_substring_regex(day, r"^\d{4}-\d{2}-\d{2}$"), False)
            if not pc.all(good).as_py():
                raise DataError(
                    f"date is {_first_bad(good, values, names)}",
                    where=str(path),
                    fix="write dates as 2021-12-31",
                )
            values = day.cast(pa.date32())
        if values.null_count:
            raise DataError(f"date is missing in {values.null_count} rows", where=str(path), fix="fill it")
        return values.cast(pa.date32(), safe=False).cast(pa.timestamp("s"))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"column date cannot be read ({error})", where=str(path), fix="write dates as 2021-12-31"
        ) from error


def _numbers(
    values: pa.ChunkedArray, column: str, names: pa.ChunkedArray, path: Path
) -> pa.ChunkedArray:
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        number = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
        good = pc.fill_null(pc.match_substring_regex(values, number), True)
        if not pc.all(good).as_py():
            raise DataError(
                f"{column} is {_first_bad(good, values, names)}, not a number",
                where=str(path),
                fix="use plain numbers with a decimal point and no thousands separators",
            )
        values = pc.utf8_trim_whitespace(values)
    out = values.cast(pa.float64(), safe=False)
    if column != "value" and out.null_count:
        row = pc.index(pc.is_null(out), pa.scalar(True)).as_py()
        raise DataError(
            f"{column} is missing in row {row + 1} ({names[row].as_py()}), {out.null_count} in all",
            where=str(path),
            fix="remove or fill these rows at the source; they are not guessed here",
        )
    return out
