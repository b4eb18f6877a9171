"""A tiny fleet: random features with a planted relation, unequal histories, small networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from vnquant.spec import MemberSpec, ModelSpec, TrainingSpec
from vnquant.stockformer.layout import Shape
from vnquant.training.data import ModelId, TrainingData
from vnquant.training.stack import Stack

FEATURES, LOOKBACK, HORIZON = 5, 6, 2
MODEL = ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=2, dropout=0.1),) * 2)
HISTORY = {"AAA": 90, "BBB": 70, "CCC": 41, "DDD": 90, "EEE": 33}
MakeStack = Callable[..., Stack]


def make_data(history: dict[str, int] | None = None) -> TrainingData:
    """Every symbol's rows depend on its name alone, so any subset trains on the same numbers."""
    features, targets, train, validation = [], [], {}, {}
    start = 0
    for symbol, windows in (history or HISTORY).items():
        rng = np.random.default_rng(sum(symbol.encode()))
        rows = LOOKBACK + windows + 20
        x = rng.standard_normal((rows, FEATURES)).astype(np.float32)
        y = (0.8 * x[:, :1] + rng.standard_normal((rows, HORIZON))).astype(np.float32)
        features.append(x)
        targets.append(y)
        first = start + LOOKBACK - 1
        train[symbol] = np.arange(first, first + windows)
        validation[symbol] = np.arange(first + windows, first + windows + 20)
        start += rows
    return TrainingData(
        torch.from_numpy(np.concatenate(features)),
        torch.from_numpy(np.concatenate(targets)),
        train,
        validation,
        LOOKBACK,
    )


@pytest.fixture
def make_stack() -> MakeStack:
    def make(
        symbols: Sequence[str] = tuple(HISTORY),
        members: Sequence[int] = (0, 1),
        *,
        data: TrainingData | None = None,
        fresh: bool = True,
        **training: object,
    ) -> Stack:
        shape = Shape.of(MODEL, 0, features=FEATURES, lookback=LOOKBACK, horizon=HORIZON)
        spec = TrainingSpec(batch_size=8, learning_rate=3e-3, **{"epochs": 3, **training})
        models = [ModelId(s, m) for s in symbols for m in members]
        stack = Stack(shape, models, MODEL, spec, data or make_data())
        if fresh:
            stack.initialise()
        return stack

    return make


def run_round(stack: Stack) -> None:
    while stack.inner < stack.round_steps:
        stack.train_step()
    stack.end_round()


def row_of(stack: Stack, model: ModelId, name: str = "weights") -> torch.Tensor:
    rows: torch.Tensor = getattr(stack, name)
    return rows[stack.models.index(model)]
