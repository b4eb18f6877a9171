"""The port to prices: where bars come from, and the hash that identifies them."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from vnquant.errors import UsageError
from vnquant.market.schema import COLUMNS


class PriceSource(Protocol):
    """Daily bars of shares, raw as published.

    A frame of bars has the columns of `vnquant.market.schema.COLUMNS`: symbol, exchange, date
    (datetime64[s]), open, high, low, close and adj_close (thousand VND), volume (shares), value
    (VND, may be missing) and change_text (the source's own change, may be missing), sorted by
    symbol and date. Web services are no such source: `vnquant.market.collect` brings their bars
    into a folder, and the folder is read, so that training never depends on the network.
    """

    name: str

    def known_symbols(self) -> Mapping[str, str]:
        """Every symbol the source has, with its exchange."""
        ...

    def load(
        self, symbols: Sequence[str] | None, *, start: dt.date | None, end: dt.date | None
    ) -> pd.DataFrame:
        """Bars of the symbols (None: all) between two dates (inclusive; None: open).

        Raises:
            UsageError: an unknown symbol.
            DataError: bars that cannot be used; the message says what, where and what to do.
        """
        ...


def open_source(
    name: Literal["folder", "synthetic"], path: Path | None, *, seed: int = 0
) -> PriceSource:
    """The source of that name; ``path`` is for the folder, ``seed`` for the simulated market.

    Raises:
        UsageError: a folder source without a path.
    """
    if name == "synthetic":
        from vnquant.market.synthetic import SyntheticMarket

        return SyntheticMarket(seed)
    if path is None:
        raise UsageError(
            "this run was made from a price file, which is not given",
            where="--prices",
            fix="give the parquet or CSV file (or set VNQUANT_PRICES)",
        )
    from vnquant.market.folder import PriceFolder

    return PriceFolder(path)


def snapshot_hash(raw: pd.DataFrame, index: pd.DataFrame | None = None) -> str:
    """sha256 of the bars' content, whatever file format or row order they came in.

    With levels of an index (date, close), of these too.

    Numbers are hashed as IEEE doubles with one NaN and one zero, dates as days, texts with their
    lengths, so two different tables cannot share an encoding.
    """
    frame = raw.sort_values(["symbol", "date"], kind="stable")
    digest = hashlib.sha256(b"vnquant bars 1")
    for column in COLUMNS:
        values = frame[column]
        digest.update(f"|{column}|{len(values)}|".encode())
        if column in ("symbol", "exchange", "change_text"):
            texts = ["" if pd.isna(v) else str(v) for v in values]
            digest.update("".join(f"{len(t)}:{t}" for t in texts).encode())
        elif column == "date":
            digest.update(values.to_numpy().astype("datetime64[D]").astype("<i8").tobytes())
        else:
            numbers = values.to_numpy(dtype="<f8", na_value=np.nan) + 0.0
            numbers[np.isnan(numbers)] = np.nan
            digest.update(numbers.tobytes())
    if index is not None:
        digest.update(f"|index|{len(index)}|".encode())
        digest.update(index["date"].to_numpy().astype("datetime64[D]").astype("<i8").tobytes())
        digest.update((index["close"].to_numpy(dtype="<f8") + 0.0).tobytes())
    return digest.hexdigest()
