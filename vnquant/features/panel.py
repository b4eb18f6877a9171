"""The panel: features and targets of every symbol in one resident array, row after row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vnquant.errors import DataError, UsageError
from vnquant.features.catalogue import NAMES, SETS, names_of
from vnquant.features.indicators import COLUMNS, compute_arrays
from vnquant.workspace import read_json, write_json, written_aside

FORMAT = 1
NEEDED = ("symbol", "exchange", "date", "close", "segment", "false_step", *COLUMNS)
ARRAYS = {
    "features": np.float32,
    "targets": np.float32,
    "dates": np.int64,
    "session": np.int32,
    "calendar": np.int64,
    "close": np.float64,
    "segment": np.int32,
    "offsets": np.int64,
}


@dataclass(frozen=True)
class Panel:
    """R rows (symbol and session), symbol after symbol, each in time order.

    Attributes:
        symbols, exchanges: S names each.
        features: float32 ``[R, F]``, NaN during a segment's warm-up and, where the set has
            features of the market, wherever the index is not known.
        targets: float32 ``[R, H]``; ``[r, h]`` is the log return of adjusted close from the
            symbol's session r + h to r + h + 1, NaN beyond the segment or the end of the data,
            and where that return was taken back the session after.
        dates: datetime64[D] ``[R]``. session: int32 ``[R]``, index into calendar.
        calendar: datetime64[D] ``[N]``, every session of the exchanges.
        close: float64 ``[R]``, raw, thousand VND. segment: int32 ``[R]``, from 0 in each symbol.
        offsets: int64 ``[S + 1]``; symbol i has rows ``offsets[i]`` to ``offsets[i + 1] - 1``.
    """

    symbols: tuple[str, ...]
    exchanges: tuple[str, ...]
    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    dates: npt.NDArray[np.datetime64]
    session: npt.NDArray[np.int32]
    calendar: npt.NDArray[np.datetime64]
    close: npt.NDArray[np.float64]
    segment: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    names: tuple[str, ...] = NAMES
    """Of the F features."""

    @property
    def horizon(self) -> int:
        return int(self.targets.shape[1])

    def rows(self, i: int) -> slice:
        """The rows of the i-th symbol."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def save(self, path: Path) -> None:
        """Write ``path.safetensors`` and then ``path.json``, each whole or not at all."""
        arrays = {
            name: np.ascontiguousarray(_as_stored(getattr(self, name)), dtype=kind)
            for name, kind in ARRAYS.items()
        }
        with written_aside(_beside(path, ".safetensors")) as aside:
            save_file(arrays, str(aside))
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        write_json(
            _beside(path, ".json"),
            {
                "format": FORMAT,
                "symbols": self.symbols,
                "exchanges": self.exchanges,
                "features": self.names,
                "shapes": shapes,
            },
        )

    @classmethod
    def load(cls, path: Path) -> Panel:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing or damaged, the two do not belong together, or the panel
                was built with other features.
        """
        meta = _read_meta(path)
        file = _beside(path, ".safetensors")
        try:
            arrays = load_file(str(file))
        except (OSError, SafetensorError) as error:
            raise _unusable(file, f"cannot be read ({error})") from error
        found = {name: (a.dtype.name, list(a.shape)) for name, a in arrays.items()}
        expected = {
            name: (np.dtype(kind).name, meta["shapes"].get(name)) for name, kind in ARRAYS.items()
        }
        if found != expected:
            wrong = sorted(n for n in found | expected if found.get(n) != expected.get(n))
            raise _unusable(file, f"{', '.join(wrong)} differ from the description beside it")
        panel = cls(
            symbols=tuple(meta["symbols"]),
            exchanges=tuple(meta["exchanges"]),
            dates=arrays.pop("dates").view("datetime64[D]"),
            calendar=arrays.pop("calendar").view("datetime64[D]"),
            names=tuple(meta["features"]),
            **arrays,
        )
        if fault := _fault(panel):
            raise _unusable(file, fault)
        return panel


def build_panel(
    clean: pd.DataFrame,
    calendar: npt.NDArray[np.datetime64],
    horizon: int,
    index: pd.DataFrame | None = None,
) -> Panel:
    """Compute the features and targets of every segment of every symbol.

    Args:
        clean: clean bars sorted by symbol and date; see `vnquant.market.quality`.
        calendar: every session, datetime64[D], sorted.
        horizon: sessions ahead, at least 1.
        index: levels of VNINDEX, for the set ``v2``; see `vnquant.market.index`.

    Raises:
        DataError: no bars, a missing column, bars out of order or on a date outside the calendar.
        UsageError: horizon below 1.
    """
    if horizon < 1:
        raise UsageError(f"horizon {horizon} is below 1", where="windows", fix="give 1 or more")
    missing = [c for c in NEEDED if c not in clean.columns]
    if missing:
        raise _not_clean(f"columns {', '.join(missing)} are missing")
    if clean.empty:
        raise _not_clean("there is not a single bar")
    symbol = clean["symbol"].to_numpy().astype(str)
    dates = clean["date"].to_numpy().astype("datetime64[D]")
    segment = clean["segment"].to_numpy().astype(np.int32)
    calendar = np.asarray(calendar).astype("datetime64[D]")
    new_symbol = np.concatenate([[True], symbol[1:] != symbol[:-1]])
    new_segment = new_symbol | np.concatenate([[True], segment[1:] != segment[:-1]])
    session = _sessions(symbol, dates, calendar, new_symbol)

    columns = [clean[c].to_numpy(dtype=np.float64) for c in COLUMNS]
    names = names_of("v1" if index is None else "v2")
    features = np.empty((len(clean), len(names)), dtype=np.float32)
    if index is not None:
        from vnquant.market.index import level_on  # reads files: a loaded panel does not need that

        columns.append(level_on(index, dates))
    edges = np.append(np.flatnonzero(new_segment), len(clean))
    for begin, end in pairwise(edges.tolist()):
        try:
            features[begin:end] = compute_arrays(*(c[begin:end] for c in columns))
        except DataError as error:
            where = f"{symbol[begin]} from {dates[begin]}, {error.where}"
            raise DataError(error.what, where=where, fix=error.fix) from error
    first = np.flatnonzero(new_symbol)
    return Panel(
        symbols=tuple(symbol[first].tolist()),
        exchanges=tuple(clean["exchange"].to_numpy().astype(str)[first].tolist()),
        features=features,
        targets=_targets(
            clean["adj_close"].to_numpy(dtype=np.float64),
            clean["false_step"].to_numpy(dtype=bool),
            edges,
            horizon,
        ),
        dates=dates,
        session=session,
        calendar=calendar,
        close=clean["close"].to_numpy(dtype=np.float64, copy=True),
        segment=segment,
        offsets=np.append(first, len(clean)).astype(np.int64),
        names=names,
    )


def _targets(
    adj_close: npt.NDArray[np.float64],
    false_step: npt.NDArray[np.bool_],
    edges: npt.NDArray[np.int64],
    horizon: int,
) -> npt.NDArray[np.float32]:
    """Log returns of the next ``horizon`` rows, float32 ``[R, H]``; NaN beyond a segment and for
    a false step."""
    n = len(adj_close)
    ahead = np.diff(np.log(adj_close), append=np.nan)  # [r]: from r to r + 1
    ahead[:-1][false_step[1:]] = np.nan
    ahead[edges[1:] - 1] = np.nan
    last = np.repeat(edges[1:] - 1, np.diff(edges))
    index = np.arange(n)[:, None] + np.arange(horizon)
    found = ahead[np.minimum(index, n - 1)]
    return np.where(index < last[:, None], found, np.nan).astype(np.float32)


def _sessions(
    symbol: npt.NDArray[np.str_],
    dates: npt.NDArray[np.datetime64],
    calendar: npt.NDArray[np.datetime64],
    new_symbol: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int32]:
    """Every row's index into the calendar, after checking the order of the rows."""
    if int(new_symbol.sum()) != len(set(symbol[new_symbol].tolist())):
        raise _not_clean("the bars of a symbol are not together")
    late = ~new_symbol & np.concatenate([[False], dates[1:] <= dates[:-1]])
    if late.any():
        r = int(late.argmax())
        raise _not_clean(f"{symbol[r]} {dates[r]} does not follow {dates[r - 1]}")
    if (np.diff(calendar) <= np.timedelta64(0, "D")).any():
        raise _not_clean("the calendar is not sorted")
    place = np.searchsorted(calendar, dates)
    outside = place == len(calendar)
    outside[~outside] = calendar[place[~outside]] != dates[~outside]
    if outside.any():
        r = int(outside.argmax())
        raise _not_clean(f"{symbol[r]} {dates[r]} is not a session of the calendar")
    return place.astype(np.int32)


def _fault(panel: Panel) -> str:
    """What makes a loaded panel unusable, or nothing."""
    rows, offsets = len(panel.features), panel.offsets
    if panel.features.ndim != 2 or panel.features.shape[1] != len(panel.names):
        return f"features are {list(panel.features.shape)}, not [R, {len(panel.names)}]"
    if panel.targets.ndim != 2:
        return f"targets are {list(panel.targets.shape)}, not [R, H]"
    uneven = [
        name
        for name in ("targets", "dates", "session", "close", "segment")
        if len(getattr(panel, name)) != rows
    ]
    if uneven:
        return f"{', '.join(uneven)} do not have the {rows} rows of the features"
    if not len(panel.symbols) == len(panel.exchanges) == len(offsets) - 1:
        return "symbols, exchanges and offsets do not match"
    if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) <= 0).any():
        return "offsets do not divide the rows among the symbols"
    inside = (panel.session >= 0) & (panel.session < len(panel.calendar))
    if not inside.all() or (panel.calendar[panel.session] != panel.dates).any():
        return "sessions do not match the calendar"
    return ""


def _read_meta(path: Path) -> dict[str, Any]:
    file = _beside(path, ".json")
    meta = read_json(file)
    if not isinstance(meta, dict):
        raise _unusable(file, "is missing or damaged")
    if meta.get("format") != FORMAT:
        raise _unusable(file, f"has format {meta.get('format')}, not {FORMAT}")
    if meta.get("features") not in [list(names_of(name)) for name in SETS]:
        raise _unusable(file, "was built with other features")
    if not all(isinstance(meta.get(k), list) for k in ("symbols", "exchanges")):
        raise _unusable(file, "does not name its symbols")
    if not isinstance(meta.get("shapes"), dict):
        raise _unusable(file, "does not give the shapes of its arrays")
    return meta


def _as_stored(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # safetensors knows no dates: days since 1970-01-01 instead.
    return array.astype("datetime64[D]").view(np.int64) if array.dtype.kind == "M" else array


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _not_clean(what: str) -> DataError:
    return DataError(what, where="clean bars", fix="run the quality checks (stage ingest) again")


def _unusable(file: Path, what: str) -> DataError:
    return DataError(what, where=str(file), fix="build the panel again (stage features)")
