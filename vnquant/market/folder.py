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
from vnquant.market.universe import VN102, canonical, check_known

SUFFIXES = (".parquet", ".csv")
OPTIONAL = ("symbol", "exchange", "value", "change_text")
COLUMNS_KEY = "vnquant.columns"  # in a table's metadata: all columns of its file
INDEX = "INDEX"  # rows of this exchange are indices, not shares
UNREADABLE = (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowTypeError, pa.ArrowNotImplementedError)


class PriceFolder:
    """A file of bars, or a directory of such files (not of directories).

    Columns: date, open, high, low, close, adj_close and volume are required, see
    `vnquant.market.schema`; value and change_text may be missing. A file without a symbol column
    holds one symbol, named by the file: ``FPT.csv``. Without an exchange column the exchange is
    looked up in `vnquant.market.universe.VN102`. Other columns are ignored, and rows of the
    exchange ``INDEX`` are dropped.

    Args:
        path: the file or directory.
        today: no bar may be later; None: the clock's date in Viet Nam.
    """

    name = "folder"

    def __init__(self, path: Path, *, today: dt.date | None = None) -> None:
        self.path = Path(path)
        self._today = today

    @cached_property
    def _files(self) -> list[Path]:
        fix = "give a file named *.parquet or *.csv, or a directory of such files"
        if not self.path.exists():
            raise DataError("does not exist", where=str(self.path), fix=fix)
        files = [self.path]
        if self.path.is_dir():
            files = sorted(p for p in self.path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not files:
                raise DataError("holds no parquet or CSV file", where=str(self.path), fix=fix)
        elif self.path.suffix.lower() not in SUFFIXES:
            raise DataError("is neither parquet nor CSV", where=str(self.path), fix=fix)
        return files

    @cached_property
    def _listed(self) -> dict[Path, dict[str, tuple[str, list[str]]]]:
        """For each file: symbol to exchange and its spellings there; INDEX rows left out."""
        listed: dict[Path, dict[str, tuple[str, list[str]]]] = {}
        for path in self._files:
            # The date, which every file must have, counts the rows where neither of them is there.
            table = _read(path, ("symbol", "exchange", "date"))
            _no_missing_column(table, path)
            names = _symbols(table, path)
            written = table["symbol"] if "symbol" in table.column_names else names
            rows = {"symbol": names, "exchange": _exchanges(table, names, path), "written": written}
            found: dict[str, tuple[str, list[str]]] = {}
            for row in pa.table(rows).group_by(list(rows)).aggregate([]).to_pylist():
                if row["exchange"] != INDEX and row["symbol"] is not None:
                    entry = found.setdefault(row["symbol"], (row["exchange"], []))
                    entry[1].append(row["written"])
            listed[path] = found
        return listed

    def known_symbols(self) -> Mapping[str, str]:
        """Every share in the files, with its exchange, by name.

        Raises:
            DataError: a file cannot be read, or an exchange is not known.
        """
        known = {s: e for found in self._listed.values() for s, (e, _) in found.items()}
        return dict(sorted(known.items()))

    def load(
        self,
        symbols: Sequence[str] | None = None,
        *,
        start: dt.date | None = None,
        end: dt.date | None = None,
    ) -> pd.DataFrame:
        """Bars of the symbols (None: all) between two dates (inclusive; None: open).

        Raises:
            UsageError: an unknown symbol.
            DataError: a file or its bars cannot be used; says what, where and what to do.
        """
        wanted = None if symbols is None else canonical(symbols)
        if wanted is not None:
            check_known(wanted, self.known_symbols())
        parts = [(p, f) for p in self._files if len(f := self._load_file(p, wanted))]
        if not parts:
            raise DataError(
                "holds no bars of shares", where=str(self.path), fix="export the prices again"
            )
        _no_shared_days(parts)
        raw = pd.concat([frame for _, frame in parts], ignore_index=True)
        raw = raw.sort_values(["symbol", "date"], ignore_index=True)
        where = str(self.path if len(parts) > 1 else parts[0][0])
        # All bars are checked before the dates cut any off, so that a fault has one message.
        check(raw, where=where, today=self._today)
        keep = pd.Series(True, index=raw.index)
        if start is not None:
            keep &= raw["date"] >= pd.Timestamp(start)
        if end is not None:
            keep &= raw["date"] <= pd.Timestamp(end)
        if not keep.any():
            first, last = raw["date"].min(), raw["date"].max()
            raise DataError(
                f"holds no bars from {start or 'the first'} to {end or 'the last'}",
                where=where,
                fix=f"choose dates between {first:%Y-%m-%d} and {last:%Y-%m-%d}",
            )
        return raw if keep.all() else raw[keep].reset_index(drop=True)

    def _load_file(self, path: Path, wanted: list[str] | None) -> pd.DataFrame:
        written = None
        if wanted is not None:
            found = self._listed[path]
            written = [w for s in wanted if s in found for w in found[s][1]]
            if not written:
                return pd.DataFrame(columns=list(COLUMNS))
        table = _read(path, COLUMNS, written)
        _no_missing_column(table, path)
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
        keep = pc.fill_null(pc.not_equal(built["exchange"], INDEX), True)
        if wanted is not None:
            keep = pc.and_(keep, pc.is_in(built["symbol"], pa.array(wanted, pa.string())))
        frame: pd.DataFrame = built.filter(keep).to_pandas()
        texts = {"symbol": "str", "exchange": "str", "change_text": "str"}
        return frame.astype(texts | {"date": "datetime64[s]"})


def _read(path: Path, columns: Sequence[str], written: Sequence[str] | None = None) -> pa.Table:
    """Those of the columns that the file has; every fault becomes a DataError.

    Args:
        written: spellings in the column symbol to keep (parquet only); None: every row.
    """
    kind = path.suffix.lower().lstrip(".")
    try:
        if path.stat().st_size == 0:
            raise DataError("is empty", where=str(path), fix="export the prices again")
        if kind == "parquet":
            present = pq.read_schema(path).names
            _no_column_twice(present, path)
            filters = [("symbol", "in", written)] if written and "symbol" in present else None
            wanted = [c for c in columns if c in present]
            table = pq.read_table(path, columns=wanted, filters=filters, partitioning=None)
            return table.replace_schema_metadata({COLUMNS_KEY: "\n".join(present)})
        # Everything as text: the parser must not guess, and errors can quote the value.
        with pv.open_csv(path) as reader:
            header = reader.schema.names
        _no_column_twice(header, path)
        options = pv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
        )
        table = pv.read_csv(path, convert_options=options)
        return table.select([c for c in columns if c in header]).replace_schema_metadata(
            {COLUMNS_KEY: "\n".join(header)}
        )
    except (*UNREADABLE, OSError) as error:
        what = str(error).splitlines()[0].strip().rstrip(".")
        raise DataError(
            f"cannot be read as {kind} ({what})",
            where=str(path),
            fix="it may be cut short or of another format: export it again (CSV as UTF-8)",
        ) from error


def _no_column_twice(names: Sequence[str], path: Path) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(
            f"column {twice[0]!r} appears twice", where=str(path), fix="keep one of the two"
        )


def _no_missing_column(table: pa.Table, path: Path) -> None:
    present = (table.schema.metadata or {}).get(COLUMNS_KEY.encode(), b"").decode().split("\n")
    missing = [c for c in COLUMNS if c not in present and c not in OPTIONAL]
    if not missing:
        return
    fix = f"add or rename a column to {missing[0]!r}, in lower case"
    if missing == ["adj_close"]:
        fix = (
            "add the close adjusted for splits, bonus shares and dividends (a copy of close only "
            "if there were none): raw prices would show every ex-date as a loss"
        )
    what = f"column {missing[0]!r} is missing (found: {', '.join(present)})"
    raise DataError(what, where=str(path), fix=fix)


def _no_shared_days(parts: list[tuple[Path, pd.DataFrame]]) -> None:
    """Two files with the same symbol and day: name both."""
    if len(parts) < 2:
        return
    keys = pd.concat(
        [f[["symbol", "date"]].drop_duplicates().assign(file=p.name) for p, f in parts]
    )
    twice = keys[keys.duplicated(["symbol", "date"], keep=False)]
    if len(twice):
        bar = twice.sort_values(["symbol", "date"]).iloc[0]
        same = twice[(twice["symbol"] == bar["symbol"]) & (twice["date"] == bar["date"])]
        raise DataError(
            f"{bar['symbol']} {bar['date']:%Y-%m-%d} is in both {' and '.join(same['file'])}",
            where=str(parts[0][0].parent),
            fix="keep each symbol and day in one file",
        )


def _symbols(table: pa.Table, path: Path) -> pa.ChunkedArray:
    if "symbol" in table.column_names:
        return pc.utf8_upper(pc.utf8_trim_whitespace(table["symbol"].cast(pa.string())))
    return pa.chunked_array([pa.array([path.stem.strip().upper()] * len(table), pa.string())])


def _exchanges(table: pa.Table, names: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    if "exchange" in table.column_names:
        return pc.utf8_upper(pc.utf8_trim_whitespace(table["exchange"].cast(pa.string())))
    unknown = [s for s in pc.unique(names).to_pylist() if s not in VN102]
    if unknown:
        raise DataError(
            f"the exchange of {unknown[0]} is not known",
            where=str(path),
            fix="add a column exchange with HOSE, HNX or UPCOM",
        )
    exchanges = [VN102[s] for s in names.to_pylist()]
    return pa.chunked_array([pa.array(exchanges, pa.string())])


def _example(good: pa.ChunkedArray, values: pa.ChunkedArray, names: pa.ChunkedArray) -> str:
    """The first bad value, with its place and how many more there are."""
    row = pc.index(good, pa.scalar(False)).as_py()
    more = pc.sum(pc.invert(good)).as_py() - 1
    tail = f", and {more:,} more" if more else ""
    return f"{values[row].as_py()!r} in data row {row + 1} ({names[row].as_py()}{tail})"


def _is_text(values: pa.ChunkedArray) -> bool:
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _dates(values: pa.ChunkedArray, names: pa.ChunkedArray, path: Path) -> pa.ChunkedArray:
    fix = "write dates as 2021-12-31"
    where = f"{path}, column date"
    if _is_text(values):
        text = pc.utf8_trim_whitespace(values.cast(pa.string()))
        pattern = r"^\d{4}-\d{2}-\d{2}([T ]00:00(:00(\.0+)?)?)?$"
        good = pc.fill_null(pc.match_substring_regex(text, pattern), False)
        days = pc.strptime(
            pc.utf8_slice_codeunits(text, 0, 10), format="%Y-%m-%d", unit="s", error_is_null=True
        )
        # strptime lets 30 February pass as 2 March, so the text must survive the round trip.
        same = pc.equal(pc.strftime(days, format="%Y-%m-%d"), pc.utf8_slice_codeunits(text, 0, 10))
        good = pc.and_(good, pc.fill_null(same, False))
    elif pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        if getattr(values.type, "tz", None):
            zone = pa.timestamp(values.type.unit, "Asia/Ho_Chi_Minh")
            values = pc.local_timestamp(values.cast(zone))
        days = values.cast(pa.date32(), safe=False).cast(pa.timestamp("s"))
        good = pc.is_valid(days)
    else:
        raise DataError(f"holds {values.type}, not dates", where=where, fix=fix)
    if not pc.all(good).as_py() and len(good):
        what = f"the date is {_example(good, values, names)}"
        raise DataError(what, where=where, fix=fix)
    return days


def _numbers(
    values: pa.ChunkedArray, column: str, names: pa.ChunkedArray, path: Path
) -> pa.ChunkedArray:
    where = f"{path}, column {column}"
    if _is_text(values):
        values = pc.utf8_trim_whitespace(values.cast(pa.string()))
        number = r"(?i)^[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|inf(inity)?)$"
        good = pc.fill_null(pc.match_substring_regex(values, number), True)
        if not pc.all(good).as_py() and len(good):
            raise DataError(
                f"{column} is {_example(good, values, names)}, not a number",
                where=where,
                fix="use plain numbers with a decimal point and no thousands separators",
            )
        values = pc.replace_substring_regex(values, r"^\+", "")
    try:
        out = values.cast(pa.float64(), safe=False)
    except UNREADABLE as error:
        raise DataError(
            f"holds {values.type}, not numbers", where=where, fix="store it as a number"
        ) from error
    present = pc.is_valid(out)
    if pa.types.is_floating(out.type):
        present = pc.and_(present, pc.fill_null(pc.invert(pc.is_nan(out)), False))
    if column != "value" and len(out) and not pc.all(present).as_py():
        raise DataError(
            f"{column} is missing: {_example(present, values, names)}",
            where=where,
            fix="remove these rows or complete them at the source; nothing is guessed here",
        )
    return out
