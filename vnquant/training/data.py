"""One resident tensor of scaled features; batches and validation windows are indices into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from vnquant.features.panel import Panel
from vnquant.features.windows import Scaler, Windows, faded, gather
from vnquant.stockformer.randomness import shuffled
from vnquant.training.embedding import NO_EMBEDDING, Embedding

POOL = "pool"
"""The symbol of a pooled model. No ticker can be that: they have no small letters."""


class ModelId(NamedTuple):
    """One model: a symbol's member of the ensemble, in a fold of the walk-forward (0: in none).

    Random numbers are a function of symbol and member alone: folds differ by their data only.
    A pooled model has the symbol `POOL`: its samples are those of all symbols.
    """

    symbol: str
    member: int
    fold: int = 0

    @property
    def series(self) -> str:
        """What it is trained on; the members of an ensemble share it."""
        return series(self.symbol, self.fold)

    def __str__(self) -> str:
        return f"{self.series}.m{self.member}"


def series(symbol: str, fold: int = 0) -> str:
    """The name of a symbol's windows and scale in a fold: ``FPT``, or ``FPT@2`` in the second."""
    return f"{symbol}@{fold}" if fold else symbol


class Section(NamedTuple):
    """What makes the rows of different symbols comparable, each ``[R]``."""

    session: torch.Tensor
    """int64, index into the calendar."""
    scale: torch.Tensor
    """float32: a symbol's daily volatility, divided by the mean of the fold's."""

    def of(self, rows: torch.Tensor) -> Section:
        return Section(self.session[rows], self.scale[rows])


@dataclass(frozen=True)
class TrainingData:
    """What training reads, on the training device.

    ``features`` is ``[R, F]`` scaled by each series' own scaler, in the computing dtype;
    ``targets`` is float32 ``[R, H]`` in units of the series' daily volatility. ``train`` and
    ``validation`` map a series to the row of each window's last session, int64. A series is a
    symbol, or a symbol in a fold; every fold has rows of its own.
    """

    features: torch.Tensor
    targets: torch.Tensor
    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    lookback: int
    section: Section | None = None
    """For a loss that compares symbols."""
    fading: torch.Tensor | None = None
    """How much each input of a window counts, float32 ``[lookback, F]``; None: all alike."""

    @classmethod
    def build(
        cls,
        panel: Panel,
        folds: Mapping[int, Sequence[Windows]],
        scalers: Mapping[str, Scaler],
        lookback: int,
        device: torch.device,
        dtype: torch.dtype,
        embedding: Embedding = NO_EMBEDDING,
        half_life: float | None = None,
    ) -> TrainingData:
        """Scale every series with its own scaler and move the result to the device once.

        Args:
            folds: windows of every symbol of the panel, by fold.
            scalers: by series; the rows of a series without one stay NaN.
            embedding: adds a column for each of its values, 1 in the rows of symbols that have it.
            half_life: of the features, in sessions; the columns of an embedding do not fade.
        """
        count, own_features = panel.features.shape
        width = own_features + len(embedding.values)
        features = np.full((len(folds) * count, width), np.nan, np.float32)
        targets = np.full((len(folds) * count, panel.horizon), np.nan, np.float32)
        scale = np.ones(len(folds) * count, np.float32)
        train, validation = {}, {}
        for place, (fold, windows) in enumerate(folds.items()):
            known = [s for w in windows if (s := scalers.get(series(w.symbol, fold)))]
            typical = np.mean([s.target_scale for s in known]) if known else 1.0
            for i, w in enumerate(windows):
                name, source = series(w.symbol, fold), panel.rows(i)
                train[name] = w.train + place * count
                validation[name] = w.validation + place * count
                if scaler := scalers.get(name):
                    own = slice(source.start + place * count, source.stop + place * count)
                    features[own, :own_features] = scaler.transform(panel.features[source])
                    features[own, own_features:] = embedding.columns(w.symbol)
                    targets[own] = panel.targets[source] / scaler.target_scale
                    scale[own] = scaler.target_scale / typical
        return cls(
            features=torch.from_numpy(features).to(device=device, dtype=dtype),
            targets=torch.from_numpy(targets).to(device),
            train=train,
            validation=validation,
            lookback=lookback,
            fading=_fading(faded(lookback, half_life, device), own_features, width),
            section=Section(
                torch.from_numpy(np.tile(panel.session.astype(np.int64), len(folds))).to(device),
                torch.from_numpy(scale).to(device),
            ),
        )

    def windows(self, ends: torch.Tensor) -> torch.Tensor:
        """The inputs of the windows that end in these rows: ``[..., lookback, F]``."""
        return gather(self.features, ends, self.lookback, self.fading)

    def pooled(self, symbols: Mapping[int, Sequence[str]]) -> TrainingData:
        """The same with one more series in each fold: the windows of all these symbols together.

        Every window keeps the part of the fold that it has in its own symbol's series, and the
        scale of its own symbol.
        """

        def together(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {
                series(POOL, fold): np.concatenate([parts[series(s, fold)] for s in names])
                for fold, names in symbols.items()
                if names
            }

        return replace(
            self,
            train=self.train | together(self.train),
            validation=self.validation | together(self.validation),
        )

    def steps_per_epoch(self, name: str, batch_size: int) -> int:
        return -(-len(self.train[name]) // batch_size)

    def epoch_batches(
        self,
        models: Sequence[ModelId],
        epoch: int,
        batch_size: int,
        seed: int,
        *,
        by_session: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Every batch of one epoch: rows int64 and weights float32, both ``[M, steps, B]``.

        A shorter history fills fewer steps; what is left has weight 0, and so has the padding of
        a model's last batch.

        Args:
            by_session: shuffle whole sessions, whose windows stay side by side.
        """
        steps = max(self.steps_per_epoch(m.series, batch_size) for m in models)
        rows = np.empty((len(models), steps * batch_size), dtype=np.int64)
        weight = np.zeros_like(rows, dtype=np.float32)
        for i, model in enumerate(models):
            ends = self.train[model.series]
            mixed = (seed, model.symbol, model.member, epoch)
            if by_session:
                order = self._by_session(ends, *mixed)
            else:
                order = ends[shuffled(*mixed, len(ends))]
            rows[i, : len(order)] = order
            rows[i, len(order) :] = order[0]
            weight[i, : len(order)] = 1.0
        return self._placed(rows, weight, (len(models), steps, batch_size))

    def _by_session(
        self, ends: np.ndarray, seed: int, symbol: str, member: int, epoch: int
    ) -> np.ndarray:
        assert self.section is not None
        found = self.section.session[torch.from_numpy(ends).to(self.features.device)]
        days, day = np.unique(found.cpu().numpy(), return_inverse=True)
        place = shuffled(seed, symbol, member, epoch, len(days))
        return np.asarray(ends[np.argsort(place[day], kind="stable")])

    def validation_rows(
        self, models: Sequence[ModelId], multiple: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All validation windows: rows int64 and weights float32, both ``[M, N]``, padded."""
        ends = [self.validation[m.series] for m in models]
        return pad_rows(ends, self.features.device, multiple)

    def _placed(
        self, rows: np.ndarray, weight: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.features.device
        return (
            torch.from_numpy(rows).view(shape).to(device),
            torch.from_numpy(weight).view(shape).to(device),
        )


def _fading(of_features: torch.Tensor | None, own: int, width: int) -> torch.Tensor | None:
    """How much each of ``width`` inputs counts, ``[lookback, F]``, of which the first ``own`` fade.

    What a symbol is does not grow old: an embedding is the same bias in every token.
    """
    if of_features is None:
        return None
    whole = of_features.new_ones(len(of_features), width)
    whole[:, :own] = of_features
    return whole


def pad_rows(
    ends: Sequence[np.ndarray], device: torch.device, multiple: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of unequal length as int64 ``[M, N]`` with weights float32 ``[M, N]`` (0 = padding).

    N is the longest length, rounded up to a ``multiple``.
    """
    longest = -(-max(len(e) for e in ends) // multiple) * multiple
    rows = np.zeros((len(ends), longest), dtype=np.int64)
    weight = np.zeros((len(ends), longest), dtype=np.float32)
    for i, e in enumerate(ends):
        rows[i] = np.resize(e, longest)
        weight[i, : len(e)] = 1.0
    return torch.from_numpy(rows).to(device), torch.from_numpy(weight).to(device)
