"""The folder of collected prices: one parquet for each symbol, and what was replaced beside it.

    FOLDER/
      FPT.parquet               bars in the schema's columns; how they came about in its metadata
      replaced/FPT-...parquet   earlier histories that the source has since rewritten
      fetch.json                the last fetch: what came, what changed, what failed
      .replies/                 answers of symbols that were interrupted

Only the parquet files at the top are prices to `vnquant.market.folder.PriceFolder`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vnquant.errors import RetryableError, UsageError
from vnquant.market.folder import UNREADABLE
from vnquant.market.schema import COLUMNS, check
from vnquant.workspace import locked, write_json, written_aside

KEY = b"vnquant.fetch"


@dataclass(frozen=True)
class Origin:
    """How a file's bars came about.

    Attributes:
        source: name of the service.
        asked_from: first date asked for, ISO; None: everything.
        through: the last settled date that was asked for, ISO.
        fetched: when, UTC, ISO.
    """

    source: str
    asked_from: str | None
    through: str
    fetched: str

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Raises ValueError or TypeError for anything else than what was written."""
        origin = cls(**json.loads(text))
        for date in (origin.through, origin.asked_from):
            if date is not None:
                dt.date.fromisoformat(date)
        return origin


@dataclass(frozen=True)
class Stored:
    bars: pd.DataFrame
    origin: Origin


class PriceStore:
    """One folder, written by one process at a time.

    Args:
        folder: made by `opened`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.replies = self.folder / ".replies"

    @contextlib.contextmanager
    def opened(self) -> Iterator[Self]:
        """Make the folder and hold it; the kernel lets go however the process ends.

        Raises:
            UsageError: it cannot be written.
            RetryableError: another fetch is writing into it.
        """
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(locked(self.folder / ".lock", wait=False))
            except OSError as error:
                raise UsageError(
                    f"cannot be written ({error.strerror})",
                    where=str(self.folder),
                    fix="choose another folder with --into",
                ) from error
            if not held:
                raise RetryableError(
                    "another fetch is writing into it",
                    where=str(self.folder),
                    fix="wait for it, or choose another folder with --into",
                )
            yield self

    def path(self, symbol: str) -> Path:
        return self.folder / f"{symbol}.parquet"

    def read(self, symbol: str) -> Stored | None:
        """A symbol's bars; None if there are none, or the file is not whole and not ours."""
        path = self.path(symbol)
        try:
            table = pq.read_table(path, partitioning=None)
            origin = Origin.read((table.schema.metadata or {})[KEY])
            bars = table.replace_schema_metadata(None).select(list(COLUMNS)).to_pandas()
        except (*UNREADABLE, OSError, KeyError, ValueError, TypeError):
            return None
        texts = {"symbol": "str", "exchange": "str", "change_text": "str"}
        bars = bars.astype(texts | {"date": "datetime64[s]"})
        return Stored(bars, origin) if len(bars) else None

    def write(self, symbol: str, bars: pd.DataFrame, origin: Origin) -> None:
        """Replace a symbol's file in one step.

        Raises:
            DataError: bars that the schema refuses; the file stays as it was.
            RetryableError: the disk is full; the file stays as it was.
        """
        check(bars, where=symbol)
        table = pa.Table.from_pandas(bars, preserve_index=False)
        table = table.replace_schema_metadata({KEY: json.dumps(asdict(origin)).encode()})
        with written_aside(self.path(symbol)) as aside:
            pq.write_table(table, aside, compression="zstd")

    def keep_old(self, symbol: str, why: str) -> Path | None:
        """Copy a symbol's file into ``replaced/`` before it is rewritten; None if there is none."""
        path = self.path(symbol)
        if not path.exists():
            return None
        stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
        kept = self.folder / "replaced" / f"{symbol}-{stamp}-{why}.parquet"
        with written_aside(kept) as aside:
            shutil.copyfile(path, aside)
        return kept

    def refuse_other_sources(self, name: str) -> None:
        """Two sources in one folder would be one history of two makers.

        Raises:
            UsageError: a file of another source, or of none, is there.
        """
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                metadata = pq.read_schema(path).metadata or {}
                source = Origin.read(metadata[KEY]).source
            except KeyError:
                source = "somebody else"
            except (*UNREADABLE, OSError, ValueError, TypeError):
                continue  # damaged: fetched anew, and kept as evidence
            if source != name:
                raise UsageError(
                    f"holds prices of {source} ({path.name}), not of {name}",
                    where=str(self.folder),
                    fix="choose another folder with --into; `vnquant prices compare` compares two",
                )

    def write_report(self, report: Mapping[str, Any]) -> None:
        write_json(self.folder / "fetch.json", report)


def origin(source: str, asked_from: dt.date | None, through: dt.date) -> Origin:
    """An origin of this moment."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Origin(source, None if asked_from is None else str(asked_from), str(through), now)
