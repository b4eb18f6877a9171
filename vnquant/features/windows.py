"""Which windows train, validate and test; and the scaler that only training rows may shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vnquant.features.panel import Panel
from vnquant.spec import WindowSpec

Rows = npt.NDArray[np.int64]
CLIP = 5.0
"""Scaled features are clipped here: a limit-up day is news, not a lever on the whole network."""
LEAST_SCALE = 1e-6


@dataclass(frozen=True)
class Windows:
    """One symbol's windows, each named by the panel row of its last session; int64, rising."""

    symbol: str
    train: Rows
    validation: Rows
    test: Rows
    latest: int | None
    """The newest row with a whole lookback, whose future is not known yet."""


def split(panel: Panel, spec: WindowSpec) -> list[Windows]:
    """Chronological parts with purge and embargo, the same dates for every symbol.

    With v and t the calendar positions of the first session on or after ``validation_start`` and
    ``test_start``: a training window ends at v - 1 - purge at the latest and its last target
    session lies before v; a validation window ends between v + embargo and t - 1 - purge with its
    targets before t; a test window ends at t + embargo or later.
    """
    return [_split_symbol(panel, i, spec) for i in range(len(panel.symbols))]


def _split_symbol(panel: Panel, i: int, spec: WindowSpec) -> Windows:
    rows = slice(int(panel.offsets[i]), int(panel.offsets[i + 1]))
    session = panel.session[rows].astype(np.int64)
    count = len(session)
    ready = _whole_lookback(
        np.isfinite(panel.features[rows]).all(axis=1), panel.segment[rows], spec.lookback
    )
    known = ready & np.isfinite(panel.targets[rows]).all(axis=1)
    # The session of the last target bar; rows without one are excluded by `known`.
    last = session[np.minimum(np.arange(count) + spec.horizon, count - 1)] if count else session
    v, t = (
        int(np.searchsorted(panel.calendar, np.datetime64(d, "D")))
        for d in (spec.validation_start, spec.test_start)
    )
    train = known & (session <= v - 1 - spec.purge) & (last < v)
    validation = (
        known & (session >= v + spec.embargo) & (session <= t - 1 - spec.purge) & (last < t)
    )
    test = known & (session >= t + spec.embargo)
    end = np.flatnonzero(ready)

    def at(mask: npt.NDArray[np.bool_]) -> Rows:
        return np.flatnonzero(mask).astype(np.int64) + rows.start

    return Windows(
        panel.symbols[i],
        at(train),
        at(validation),
        at(test),
        int(end[-1]) + rows.start if len(end) and end[-1] == count - 1 else None,
    )


def _whole_lookback(
    usable: npt.NDArray[np.bool_], segment: npt.NDArray[np.int32], lookback: int
) -> npt.NDArray[np.bool_]:
    """Rows that end a run of ``lookback`` usable rows inside one segment."""
    count = len(usable)
    breaks = np.ones(count, dtype=bool)
    breaks[1:] = segment[1:] != segment[:-1]
    # Position since the last unusable row or segment start: the length of the run ending here.
    place = np.arange(count)
    last_bad = np.maximum.accumulate(np.where(~usable, place, -1)) if count else place
    last_start = np.maximum.accumulate(np.where(breaks, place, 0)) if count else place
    run = np.minimum(place - last_bad, place - last_start + 1)
    return run >= lookback




@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each feature, and the symbol's daily volatility.

    ``mean`` and ``std`` are float32 ``[F]``; ``target_scale`` divides target returns.
    """

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    target_scale: float

    def transform(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scaled features ``[..., F]``, clipped to +-5; NaN stays NaN."""
        scaled: npt.NDArray[np.float32] = np.clip((features - self.mean) / self.std, -CLIP, CLIP)
        return scaled

    def to_dict(self) -> dict[str, Any]:
        # float32 -> float -> float32 is exact, so a reloaded scaler is the same scaler.
        return {
            "mean": [float(v) for v in self.mean],
            "std": [float(v) for v in self.std],
            "target_scale": self.target_scale,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Scaler:
        return cls(
            np.asarray(value["mean"], dtype=np.float32),
            np.asarray(value["std"], dtype=np.float32),
            float(value["target_scale"]),
        )


def fit_scaler(panel: Panel, windows: Windows, lookback: int) -> Scaler:
    """Fit on the rows that training windows cover, and on their targets; on nothing else.

    Raises:
        ValueError: the symbol has no training window.
    """
    if not len(windows.train):
        raise ValueError(f"{windows.symbol} has no training window to fit a scaler on")
    covered = np.zeros(len(panel.features), dtype=bool)
    for back in range(lookback):
        covered[windows.train - back] = True
    features = panel.features[covered].astype(np.float64)
    std = features.std(axis=0)
    targets = panel.targets[windows.train].astype(np.float64)
    return Scaler(
        mean=features.mean(axis=0).astype(np.float32),
        std=np.where(std > LEAST_SCALE, std, 1.0).astype(np.float32),
        target_scale=float(max(targets.std(), LEAST_SCALE)),
    )


def gather(features: torch.Tensor, ends: torch.Tensor, lookback: int) -> torch.Tensor:
    """Windows by index: ``[R, F]`` and ends ``[...]`` to ``[..., lookback, F]``, oldest first.

    Only the asked-for windows ever exist; the resident tensor is read where it lies.
    """
    back = torch.arange(1 - lookback, 1, device=ends.device)
    return features[ends.unsqueeze(-1) + back]
