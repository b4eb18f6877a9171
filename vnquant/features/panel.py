"""The panel: features and targets of every symbol in one array, resident once, indexed always."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vnquant.errors import DataError
from vnquant.features.catalogue import NAMES, compute
from vnquant.workspace import read_json, write_bytes, write_json

FORMAT = 1


@dataclass(frozen=True)
class Panel:
    """Rows are (symbol, session), symbol by symbol in the order of ``symbols``, dates rising.

    Attributes:
        features: float32 ``[R, F]``, unscaled, NaN in a segment's warm-up.
        targets: float32 ``[R, H]``: log returns of the next 1st..H-th session of the symbol, NaN
            where they would leave the segment.
        dates: datetime64[D] ``[R]``; session: int32 ``[R]``, index into ``calendar``.
        close: float64 ``[R]``, raw, thousand VND; segment: int32 ``[R]``.
        offsets: int64 ``[S + 1]``: symbol s has the rows ``offsets[s]:offsets[s + 1]``.
    """

    symbols: tuple[str, ...]
    exchanges: tuple[str, ...]
    calendar: npt.NDArray[np.datetime64]
    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    dates: npt.NDArray[np.datetime64]
    session: npt.NDArray[np.int32]
    close: npt.NDArray[np.float64]
    segment: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def rows(self, symbol: str) -> slice:
        """The rows of one symbol."""
        i = self.symbols.index(symbol)
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def save(self, path: Path) -> None:
        """Write ``path.safetensors`` and, last, ``path.json``."""
        content = save(
            {
                "features": self.features,
                "targets": self.targets,
                "dates": self.dates.astype(np.int64),
                "calendar": self.calendar.astype(np.int64),
                "session": self.session,
                "close": self.close,
                "segment": self.segment,
                "offsets": self.offsets,
            }
        )
        write_bytes(path.with_suffix(".safetensors"), content)
        meta = {
            "format": FORMAT,
            "symbols": self.symbols,
            "exchanges": self.exchanges,
            "features": NAMES,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_json(path.with_suffix(".json"), meta)

    @classmethod
    def load(cls, path: Path) -> Panel:
        """Read a panel back.

        Raises:
            DataError: a file is missing, damaged, or of another feature set.
        """
        fix = "run the features stage again"
        meta = read_json(path.with_suffix(".json"))
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise DataError("metadata is missing or unreadable", where=str(path), fix=fix)
        if tuple(meta["features"]) != NAMES:
            raise DataError("was made with other features", where=str(path), fix=fix)
        try:
            content = path.with_suffix(".safetensors").read_bytes()
            if hashlib.sha256(content).hexdigest() != meta["sha256"]:
                raise DataError("does not match its checksum", where=str(path), fix=fix)
            arrays = load(content)
        except (OSError, SafetensorError) as error:
            raise DataError(f"cannot be read ({error})", where=str(path), fix=fix) from error
        for name in ("dates", "calendar"):
            arrays[name] = arrays[name].astype("datetime64[D]")
        return cls(tuple(meta["symbols"]), tuple(meta["exchanges"]), **arrays)


def forward_returns(adj_close: npt.NDArray[np.float64], horizon: int) -> npt.NDArray[np.float32]:
    """Log returns of the next ``horizon`` sessions of one segment: ``[n, horizon]``.

    A row whose path would pass the end of the segment is NaN as a whole: half a target would let
    the split count it.
    """
    step = np.diff(np.log(adj_close))
    out = np.full((len(adj_close), horizon), np.nan, dtype=np.float32)
    whole = len(adj_close) - horizon
    if whole > 0:
        out[:whole] = np.lib.stride_tricks.sliding_window_view(step, horizon)[:whole]
    return out


def build_panel(
    clean: pd.DataFrame, calendar: npt.NDArray[np.datetime64], horizon: int
) -> Panel:
    """Features and targets of clean bars, segment by segment.

    Args:
        clean: bars of `vnquant.market.quality`, sorted by symbol and date.
        calendar: sessions, datetime64[D], sorted; every bar's date is among them.
        horizon: sessions ahead.
    """
    symbol = clean["symbol"].to_numpy()
    segment = clean["segment"].to_numpy(np.int32)
    new = np.ones(len(clean), dtype=bool)
    new[1:] = (symbol[1:] != symbol[:-1]) | (segment[1:] != segment[:-1])
    begins = np.append(np.flatnonzero(new), len(clean))
    features = np.empty((len(clean), len(NAMES)), dtype=np.float32)
    targets = np.empty((len(clean), horizon), dtype=np.float32)
    adjusted = clean["adj_close"].to_numpy(np.float64)
    for begin, end in zip(begins[:-1], begins[1:], strict=True):
        features[begin:end] = compute(clean.iloc[begin:end])
        targets[begin:end] = forward_returns(adjusted[begin:end], horizon)
    first = np.ones(len(clean), dtype=bool)
    first[1:] = symbol[1:] != symbol[:-1]
    starts = np.flatnonzero(first)
    dates = clean["date"].to_numpy().astype("datetime64[D]")
    return Panel(
        symbols=tuple(str(s) for s in symbol[starts]),
        exchanges=tuple(str(e) for e in clean["exchange"].to_numpy()[starts]),
        calendar=calendar,
        features=features,
        targets=targets,
        dates=dates,
        session=np.searchsorted(calendar, dates).astype(np.int32),
        close=clean["close"].to_numpy(np.float64),
        segment=segment,
        offsets=np.append(starts, len(clean)).astype(np.int64),
    )
