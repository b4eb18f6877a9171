"""Embeddings of a symbol or its exchange, for models that see the windows of many symbols.

A window has one input more for each value, 1 for its own and 0 for the others, so the rows of the
input projection that belong to them are the embedding: it is added to every token. For one symbol
that is a constant, a bias. So a model of one symbol needs no embedding: that of the pooled model
is folded into its input bias, and it is a model like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from vnquant.features.panel import Panel
from vnquant.market.rules import EXCHANGES
from vnquant.spec import RunSpec
from vnquant.stockformer.layout import Shape


@dataclass(frozen=True)
class Embedding:
    """The values that are told apart, and which of them each symbol has."""

    values: tuple[str, ...] = ()
    of: Mapping[str, str] = field(default_factory=dict)

    def columns(self, symbol: str) -> npt.NDArray[np.float32]:
        """A symbol's inputs: ``[V]``, 1 at its value and 0 elsewhere."""
        return np.asarray([value == self.of.get(symbol) for value in self.values], np.float32)

    def folded(self, shape: Shape, row: torch.Tensor, symbol: str) -> torch.Tensor:
        """A pooled model's weights as one symbol's, without the inputs of the embedding.

        Args:
            shape: of the pooled model.
            row: its float32 ``[P]``.
        """
        if not self.values:
            return row
        plain = replace(shape, features=shape.features - len(self.values))
        parts = {name: part[0] for name, part in shape.views(row.unsqueeze(0)).items()}
        embedded = torch.from_numpy(self.columns(symbol)) @ parts["input.weight"][plain.features :]
        parts["input.weight"] = parts["input.weight"][: plain.features]
        parts["input.bias"] = parts["input.bias"] + embedded
        out = torch.zeros(plain.row)
        for name, view in plain.views(out.unsqueeze(0)).items():
            view[0].copy_(parts[name])
        return out


NO_EMBEDDING = Embedding()


def values_of(spec: RunSpec) -> tuple[str, ...]:
    """The values that the pooled models of a run tell apart; none without an embedding."""
    what = "none" if spec.pretrain is None else spec.pretrain.embedding
    return {"none": (), "exchange": EXCHANGES, "symbol": spec.symbols}[what]


def embedding_of(spec: RunSpec, panel: Panel) -> Embedding:
    """The embedding of a run's pooled models."""
    values = values_of(spec)
    by_symbol = spec.pretrain is not None and spec.pretrain.embedding == "symbol"
    own = panel.symbols if by_symbol else panel.exchanges
    return Embedding(values, dict(zip(panel.symbols, own, strict=True))) if values else NO_EMBEDDING
