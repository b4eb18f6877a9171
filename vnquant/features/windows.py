"""Windows: which rows a model may see and when, as row indices; no window is ever materialised.

Split by date. With vb the calendar index of the first session on or after ``validation_start``,
tb the same for ``test_start``, and e the session of a window's last row:

* training: e <= vb - 1 - purge, and the last target's session is before vb;
* validation: vb + embargo <= e <= tb - 1 - purge, and the last target's session is before tb;
* test: tb + embargo <= e.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from vnquant.errors import DataError, UsageError
from vnquant.features.panel import Panel
from vnquant.spec import WindowSpec

if TYPE_CHECKING:
    import torch

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Values = TypeVar("Values", npt.NDArray[np.float32], "torch.Tensor")

CLIP = 5.0
"""Scaled features are kept within ±5 training deviations."""

CONSTANT = 1e-6
"""A deviation at or below this is a constant: dividing by it would only magnify rounding."""


@dataclass(frozen=True)
class Windows:
    """One symbol's windows, each named by the panel row of its last session (int64, ascending).

    ``latest`` is the newest row with a full lookback, with or without targets; None if there is
    none. A window with last row e covers rows ``e - lookback + 1`` to e.
    """

    symbol: str
    train: Rows
    validation: Rows
    test: Rows
    latest: int | None
    lookback: int = 60


@dataclass(frozen=True)
class Scaler:
    """A symbol's scale, learned from its training part only.

    ``mean`` and ``std`` are float32 ``[F]``; ``target_scale`` is the deviation of a daily log
    return.
    """

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    target_scale: float

    def transform(self, x: Values) -> Values:
        """Scale features ``[..., F]``, NumPy or torch, and clip to ±5; NaN stays NaN."""
        if isinstance(x, np.ndarray):
            scaled = np.clip((x - self.mean) / self.std, -CLIP, CLIP)
            return cast(Values, scaled.astype(np.float32, copy=False))
        mean, std = (x.new_tensor(v.tolist()) for v in (self.mean, self.std))
        return ((x - mean) / std).clamp(-CLIP, CLIP)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists; `from_dict` restores exactly the same values."""
        return {
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "target_scale": self.target_scale,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Scaler:
        """Restore what `to_dict` gave.

        Raises:
            DataError: a field is missing, not finite, of another length or not positive.
        """
        try:
            mean, std = (np.asarray(value[k], dtype=np.float32) for k in ("mean", "std"))
            scale = float(value["target_scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_scaler(f"cannot be read ({error!r})") from error
        if mean.ndim != 1 or mean.shape != std.shape:
            raise _bad_scaler(f"has mean {mean.shape} and std {std.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and np.isfinite(scale)):
            raise _bad_scaler("is not finite")
        if (std <= 0).any() or scale <= 0:
            raise _bad_scaler("has a scale that is not positive")
        return cls(mean, std, scale)


def split(panel: Panel, spec: WindowSpec) -> list[Windows]:
    """The windows of every symbol, in the order of ``panel.symbols``.

    Raises:
        UsageError: the panel was built for another horizon.
    """
    if panel.horizon != spec.horizon:
        raise UsageError(
            f"the panel has targets for {panel.horizon} sessions, the spec asks for {spec.horizon}",
            where="windows.horizon",
            fix="build the panel again (stage features)",
        )
    complete = _complete(panel, spec.lookback)
    known = complete & np.isfinite(panel.targets).all(axis=1)
    end = panel.session.astype(np.int64)
    # Where targets are known, the last one lies `horizon` rows ahead in the same segment.
    last_target = end[np.minimum(np.arange(len(end)) + spec.horizon, len(end) - 1)]
    vb, tb = (first_session(panel, day) for day in (spec.validation_start, spec.test_start))
    parts = {
        "train": known & (end <= vb - 1 - spec.purge) & (last_target < vb),
        "validation": known
        & (end >= vb + spec.embargo)
        & (end <= tb - 1 - spec.purge)
        & (last_target < tb),
        "test": known & (end >= tb + spec.embargo),
    }
    found = {name: _by_symbol(mask, panel.offsets) for name, mask in parts.items()}
    newest = [int(rows[-1]) if len(rows) else None for rows in _by_symbol(complete, panel.offsets)]
    return [
        Windows(
            symbol,
            found["train"][i],
            found["validation"][i],
            found["test"][i],
            newest[i],
            spec.lookback,
        )
        for i, symbol in enumerate(panel.symbols)
    ]


def _complete(panel: Panel, lookback: int) -> Mask:
    """Rows that end ``lookback`` rows of one segment, all with finite features; ``[R]``."""
    n = len(panel.features)
    good = np.isfinite(panel.features).all(axis=1)
    begins = np.zeros(n, dtype=bool)
    begins[1:] = panel.segment[1:] != panel.segment[:-1]
    begins[panel.offsets[:-1]] = True
    row = np.arange(n)
    # A stretch of good rows starts at a segment's first row, or right after a row that is not.
    start = np.maximum.accumulate(np.where(good, np.where(begins, row, 0), row + 1))
    return good & (row - start + 1 >= lookback)


def first_session(panel: Panel, day: dt.date) -> int:
    """Index into the panel's calendar of the first session on or after ``day``."""
    return int(np.searchsorted(panel.calendar, np.datetime64(day, "D")))


def _by_symbol(mask: Mask, offsets: Rows) -> list[Rows]:
    rows = np.flatnonzero(mask).astype(np.int64)
    return np.split(rows, np.searchsorted(rows, offsets[1:-1]))


def fit_scaler(panel: Panel, windows: Windows, lookback: int | None = None) -> Scaler:
    """Learn one symbol's scale from the rows its training windows cover, and from no other row.

    ``lookback`` is that of the windows unless given. A constant feature gets scale 1; so does a
    target that never moved.

    Raises:
        DataError: the symbol has no training window.
    """
    if not len(windows.train):
        raise DataError(
            "there is no training window to fit a scaler on",
            where=windows.symbol,
            fix="give a longer history or a later validation start",
        )
    rows = covered_rows(windows.train, lookback or windows.lookback)
    mean, std = _moments(panel, rows)
    spread = float(panel.targets[windows.train].astype(np.float64).std())
    return Scaler(
        mean=mean,
        std=std,
        target_scale=spread if spread > CONSTANT else 1.0,
    )


def pooled_scalers(
    panel: Panel, windows: Sequence[Windows], own: Mapping[str, Scaler]
) -> dict[str, Scaler]:
    """One scale of the features for all symbols; the targets' scales stay as they are.

    Args:
        windows: of the symbols whose training rows it is learned from, each row counted once; at
            least one of them has a training window, unless ``own`` is empty.
        own: each symbol's own scale, as `fit_scaler` learned it.
    """
    rows = [covered_rows(w.train, w.lookback) for w in windows if len(w.train)]
    if not rows:
        return dict(own)
    mean, std = _moments(panel, np.concatenate(rows))
    return {symbol: Scaler(mean, std, scaler.target_scale) for symbol, scaler in own.items()}


def _moments(panel: Panel, rows: Rows) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and deviation of the features over some rows; a constant feature gets deviation 1."""
    x = panel.features[rows].astype(np.float64)
    std = x.std(axis=0)
    return x.mean(axis=0).astype(np.float32), np.where(std > CONSTANT, std, 1.0).astype(np.float32)


def covered_rows(ends: Rows, lookback: int) -> Rows:
    """Rows inside at least one window, ascending. ``ends`` must ascend and not be empty."""
    first = int(ends[0]) - lookback + 1
    change = np.zeros(int(ends[-1]) - first + 2, dtype=np.int64)
    change[ends - lookback + 1 - first] += 1
    change[ends + 1 - first] -= 1
    return first + np.flatnonzero(np.cumsum(change) > 0).astype(np.int64)


def gather(
    features: torch.Tensor,
    ends: torch.Tensor,
    lookback: int,
    fading: torch.Tensor | None = None,
) -> torch.Tensor:
    """Read windows out of one resident tensor.

    Args:
        features: ``[R, F]``.
        ends: int64 ``[...]``, row of each window's last session, on the same device.
        fading: what the inputs are multiplied by, ``[lookback, F]`` or ``[lookback, 1]``; see
            `faded`.

    Returns:
        ``[..., lookback, F]``, oldest session first, in the dtype of ``features``.
    """
    import torch  # here, so that splitting and scaling start without it

    rows = ends.unsqueeze(-1) + torch.arange(1 - lookback, 1, device=ends.device)
    picked = features.index_select(0, rows.reshape(-1)).view(*rows.shape, features.shape[1])
    return picked if fading is None else picked.mul_(fading)


def faded(lookback: int, half_life: float | None, device: torch.device) -> torch.Tensor | None:
    """How much each session of a window counts, the last one 1: float32 ``[lookback, 1]``.

    What is small in the input must have large weights to be heard, and weights decay: a window may
    be long, and what is old in it is believed only where it proves itself.

    Args:
        half_life: sessions after which a session counts half; None: all alike, and no tensor.
    """
    import torch

    if half_life is None:
        return None
    age = torch.arange(lookback - 1, -1, -1, dtype=torch.float64)
    return torch.exp2(-age / half_life).float().unsqueeze(1).to(device)


def _bad_scaler(what: str) -> DataError:
    return DataError(what, where="scaler", fix="train the symbol again")
