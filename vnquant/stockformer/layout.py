"""Where each parameter of a model lives in its row of the ``[M, P]`` parameter matrix.

One row per model makes the rules of stacking cheap: clipping is a row norm, freezing a row mask,
keeping the best slice a row copy, compaction a row selection, and a checkpoint can be read row by
row. Weights are stored ``[in, out]``, as `torch.baddbmm` wants them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from vnquant.spec import ModelSpec

ALIGN = 16  # elements: keeps every weight 32-byte aligned in bfloat16, 64-byte in float32

Kind = Literal["weight", "bias", "gain"]


@dataclass(frozen=True)
class Parameter:
    """One named tensor: its shape and its place ``[offset, offset + size)`` in the row."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def padded(self) -> int:
        return -(-self.size // ALIGN) * ALIGN


@dataclass(frozen=True)
class Shape:
    """Everything that two models must share to be rows of one stack."""

    features: int
    lookback: int
    horizon: int
    d_model: int
    heads: int
    d_ff: int
    layers: int
    half_life: float | None = None
    """Of the inputs, in sessions (`vnquant.spec.WindowSpec`): no size, but a forecast needs it."""

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        member: int,
        *,
        features: int,
        lookback: int,
        horizon: int,
        half_life: float | None = None,
    ) -> Shape:
        return cls(
            features=features,
            lookback=lookback,
            horizon=horizon,
            d_model=model.d_model,
            heads=model.heads,
            d_ff=model.d_ff,
            layers=model.members[member].layers,
            half_life=half_life,
        )

    @property
    def outputs(self) -> int:
        """Return path, its volatility, and one logit for the rise."""
        return 2 * self.horizon + 1

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters in row order."""
        d, f = self.d_model, self.d_ff
        plan: list[tuple[str, tuple[int, ...], Kind]] = [
            ("input.weight", (self.features, d), "weight"),
            ("input.bias", (d,), "bias"),
        ]
        for i in range(self.layers):
            last = i == self.layers - 1
            # Only the last session is read, so the last layer projects queries for one token and
            # keys and values for all: its projection is stored in two parts.
            projections = (("q", d), ("kv", 2 * d)) if last else (("qkv", 3 * d),)
            plan += [
                (f"layers.{i}.norm1.gain", (d,), "gain"),
                (f"layers.{i}.norm1.bias", (d,), "bias"),
            ]
            for name, width in projections:
                plan += [
                    (f"layers.{i}.{name}.weight", (d, width), "weight"),
                    (f"layers.{i}.{name}.bias", (width,), "bias"),
                ]
            plan += [
                (f"layers.{i}.out.weight", (d, d), "weight"),
                (f"layers.{i}.out.bias", (d,), "bias"),
                (f"layers.{i}.norm2.gain", (d,), "gain"),
                (f"layers.{i}.norm2.bias", (d,), "bias"),
                (f"layers.{i}.ff1.weight", (d, f), "weight"),
                (f"layers.{i}.ff1.bias", (f,), "bias"),
                (f"layers.{i}.ff2.weight", (f, d), "weight"),
                (f"layers.{i}.ff2.bias", (d,), "bias"),
            ]
        plan += [
            ("norm.gain", (d,), "gain"),
            ("norm.bias", (d,), "bias"),
            ("head.weight", (d, self.outputs), "weight"),
            ("head.bias", (self.outputs,), "bias"),
        ]
        placed: list[Parameter] = []
        offset = 0
        for name, shape, kind in plan:
            placed.append(Parameter(name, shape, kind, offset))
            offset += placed[-1].padded
        return tuple(placed)

    @cached_property
    def row(self) -> int:
        """P: elements in a row, padding included."""
        last = self.parameters[-1]
        return last.offset + last.padded

    @cached_property
    def decayed(self) -> torch.Tensor:
        """float32 ``[P]``: 1 where weight decay applies (matrices), 0 elsewhere."""
        mask = torch.zeros(self.row)
        for p in self.parameters:
            if p.kind == "weight":
                mask[p.offset : p.offset + p.size] = 1.0
        return mask

    def views(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Split rows ``[M, P]`` into named parameters ``[M, *shape]`` without copying.

        One split, so that its backward pass is one concatenation instead of P-sized additions.
        """
        pieces = torch.split(rows, [p.padded for p in self.parameters], dim=1)
        return {
            p.name: (piece if p.padded == p.size else piece[:, : p.size]).unflatten(1, p.shape)
            for p, piece in zip(self.parameters, pieces, strict=True)
        }

    def clear_padding(self, rows: torch.Tensor) -> None:
        """Zero the elements of rows ``[M, P]`` that belong to no parameter."""
        for p in self.parameters:
            if p.padded != p.size:
                rows[:, p.offset + p.size : p.offset + p.padded] = 0.0

    def initial_row(self, rng: np.random.Generator) -> np.ndarray:
        """A fresh model as float32 ``[P]``: Xavier-uniform matrices, unit gains, zero biases.

        The head starts at a tenth of that, so an untrained model forecasts close to nothing.
        """
        row = np.zeros(self.row, dtype=np.float32)
        for p in self.parameters:
            part = row[p.offset : p.offset + p.size]
            if p.kind == "gain":
                part[:] = 1.0
            elif p.kind == "weight":
                bound = math.sqrt(6.0 / sum(p.shape)) * (0.1 if p.name == "head.weight" else 1.0)
                part[:] = (rng.random(p.size, dtype=np.float32) * 2.0 - 1.0) * np.float32(bound)
        return row
