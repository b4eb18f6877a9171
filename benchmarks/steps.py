"""One training step of M stacked models against a plain per-symbol loop, in the same run.

The peer is what one writes first: for every symbol a `torch.nn.TransformerEncoder` of the same
size (pre-norm, GELU, dropout in the same places and on the attention weights as torch does it),
`torch.optim.AdamW`, gradient clipping, one symbol after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.record import seconds
from vnquant.spec import ModelSpec, TrainingSpec
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.losses import per_model_loss
from vnquant.stockformer.model import positions
from vnquant.training.data import ModelId, TrainingData
from vnquant.training.kernels import PLAIN_KERNELS, Kernels
from vnquant.training.probe import endless
from vnquant.training.stack import Stack

BATCH, LOOKBACK, HORIZON, FEATURES = 32, 60, 5, 50


def made_data(models: int, device: str, dtype: torch.dtype, windows: int = 640) -> TrainingData:
    """Random features and targets: a step's cost does not depend on their values."""
    names = [f"S{i:04d}" for i in range(models)]
    rows = LOOKBACK + windows + 32
    make = torch.Generator(device=device).manual_seed(0)
    size = (models * rows, FEATURES)
    features = torch.randn(size, generator=make, device=device, dtype=torch.float32).to(dtype)
    targets = torch.randn((size[0], HORIZON), generator=make, device=device)
    first = np.arange(models) * rows + LOOKBACK - 1
    train = {n: f + np.arange(windows) for n, f in zip(names, first, strict=True)}
    validation = {n: f + windows + np.arange(32) for n, f in zip(names, first, strict=True)}
    return TrainingData(features, targets, train, validation, LOOKBACK)


def stacked_step(
    model: ModelSpec, models: int, device: str, dtype: torch.dtype, kernels: Kernels
) -> Callable[[], None]:
    """A function that takes one step of the whole stack."""
    shape = Shape.of(model, 0, features=FEATURES, lookback=LOOKBACK, horizon=HORIZON)
    data = made_data(models, device, dtype)
    ids = [ModelId(s, 0) for s in data.train]
    stack = Stack(shape, ids, model, TrainingSpec(epochs=1000), data, kernels)
    stack.initialise()
    return endless(stack)


class PlainModel(nn.Module):
    """The same network as ordinary modules."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            shape.d_model,
            shape.heads,
            shape.d_ff,
            dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.inputs = nn.Linear(shape.features, shape.d_model)
        self.encoder = nn.TransformerEncoder(
            layer, shape.layers, nn.LayerNorm(shape.d_model), enable_nested_tensor=False
        )
        self.head = nn.Linear(shape.d_model, shape.outputs)
        self.dropout = nn.Dropout(dropout)
        where = positions(shape.lookback, shape.d_model, torch.device("cpu"), torch.float32)
        self.register_buffer("where", where)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(
            self.encoder(self.dropout(self.inputs(x) + self.where))[:, -1]
        )
        return out


def plain_step(
    model: ModelSpec,
    models: int,
    device: str,
    dtype: torch.dtype,
    wrap: Callable[[nn.Module], nn.Module] = lambda net: net,
) -> Callable[[], None]:
    """A function that takes one step of every model, one after the other.

    Args:
        wrap: what becomes of a network before it is called, such as compiling it.
    """
    shape = Shape.of(model, 0, features=FEATURES, lookback=LOOKBACK, horizon=HORIZON)
    nets = [PlainModel(shape, model.members[0].dropout).to(device) for _ in range(models)]
    optimisers = [torch.optim.AdamW(n.parameters(), lr=5e-4, weight_decay=0.05) for n in nets]
    calls = [wrap(n) for n in nets]
    x = torch.randn(models, BATCH, LOOKBACK, FEATURES, device=device)
    y = torch.randn(models, 1, BATCH, HORIZON, device=device)
    weight = torch.ones(1, BATCH, device=device)

    def step() -> None:
        for i, (net, optimiser) in enumerate(zip(nets, optimisers, strict=True)):
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                raw = calls[i](x[i])
            per_model_loss(raw.float()[None], y[i], weight, 1.0).sum().backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()

    return step


def compare(
    model: ModelSpec,
    sizes: Sequence[int],
    device: str,
    dtype: torch.dtype,
    *,
    kernels: Kernels = PLAIN_KERNELS,
    repeats: int = 5,
    most_plain: int = 8,
) -> list[dict[str, Any]]:
    """Milliseconds per model and step, stacked and plain, for each M.

    The plain loop's cost per model does not depend on M beyond a few, so it runs with at most
    ``most_plain`` models; every row measures it anew beside the stack.
    """
    rows = []
    for models in sizes:
        peers = min(models, most_plain)
        plain = seconds(plain_step(model, peers, device, dtype), device, repeats=repeats) / peers
        stacked = seconds(
            stacked_step(model, models, device, dtype, kernels), device, repeats=repeats, warm_up=3
        )
        rows.append(
            {
                "models": models,
                "plain_ms_per_model": round(plain * 1e3, 3),
                "stacked_ms_per_model": round(stacked / models * 1e3, 3),
                "ratio": round(plain / (stacked / models), 2),
            }
        )
    return rows
