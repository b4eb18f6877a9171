"""One resident tensor of scaled features; batches and validation windows are indices into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from vnquant.features.panel import Panel
from vnquant.features.windows import Scaler, Windows
from vnquant.stockformer.randomness import shuffled


class ModelId(NamedTuple):
    """One model: a symbol's member of the ensemble."""

    symbol: str
    member: int

    def __str__(self) -> str:
        return f"{self.symbol}.m{self.member}"


@dataclass(frozen=True)
class TrainingData:
    """What training reads, on the training device.

    ``features`` is ``[R, F]`` scaled by each symbol's own scaler, in the computing dtype;
    ``targets`` is float32 ``[R, H]`` in units of the symbol's daily volatility. ``train`` and
    ``validation`` map a symbol to the row of each window's last session, int64.
    """

    features: torch.Tensor
    targets: torch.Tensor
    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    lookback: int

    @classmethod
    def build(
        cls,
        panel: Panel,
        windows: Sequence[Windows],
        scalers: Sequence[Scaler],
        lookback: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> TrainingData:
        """Scale every symbol with its own scaler and move the result to the device once."""
        features = np.empty_like(panel.features)
        targets = np.empty_like(panel.targets)
        for i, scaler in enumerate(scalers):
            rows = slice(int(panel.offsets[i]), int(panel.offsets[i + 1]))
            features[rows] = scaler.transform(panel.features[rows])
            targets[rows] = panel.targets[rows] / scaler.target_scale
        return cls(
            features=torch.from_numpy(features).to(device=device, dtype=dtype),
            targets=torch.from_numpy(targets).to(device),
            train={w.symbol: w.train for w in windows},
            validation={w.symbol: w.validation for w in windows},
            lookback=lookback,
        )

    def steps_per_epoch(self, symbol: str, batch_size: int) -> int:
        return -(-len(self.train[symbol]) // batch_size)

    def epoch_batches(
        self, models: Sequence[ModelId], epoch: int, batch_size: int, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Every batch of one epoch: rows int64 and weights float32, both ``[M, steps, B]``.

        A shorter history fills fewer steps; what is left has weight 0, and so has the padding of
        a model's last batch.
        """
        steps = max(self.steps_per_epoch(m.symbol, batch_size) for m in models)
        rows = np.empty((len(models), steps * batch_size), dtype=np.int64)
        weight = np.zeros_like(rows, dtype=np.float32)
        for i, model in enumerate(models):
            ends = self.train[model.symbol]
            order = ends[shuffled(seed, model.symbol, model.member, epoch, len(ends))]
            rows[i, : len(order)] = order
            rows[i, len(order) :] = order[0]
            weight[i, : len(order)] = 1.0
        return self._placed(rows, weight, (len(models), steps, batch_size))

    def validation_rows(
        self, models: Sequence[ModelId], multiple: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All validation windows: rows int64 and weights float32, both ``[M, N]``, padded."""
        ends = [self.validation[m.symbol] for m in models]
        return pad_rows(ends, self.features.device, multiple)

    def _placed(
        self, rows: np.ndarray, weight: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.features.device
        return (
            torch.from_numpy(rows).view(shape).to(device),
            torch.from_numpy(weight).view(shape).to(device),
        )


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
