"""Batch 32 or 64: ``python -m benchmarks.batch_size [--prices FILE] --device cpu|cuda``.

The same models are trained for the same epochs with each batch, at the learning rate as it is,
times the square root of 2, and doubled. Compared are seconds per epoch and the best validation
loss of each model, paired by model: the same symbol, member and seed.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import command_line, provenance, publish, synchronise, table_of
from benchmarks.roofline import dtype_of, kernels_for, options
from vnquant.features.panel import build_panel
from vnquant.features.windows import fit_scaler, split
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.sources import open_source
from vnquant.market.universe import VN102
from vnquant.spec import PRESETS, ModelSpec, RunSpec, TrainingSpec
from vnquant.stockformer.layout import Shape
from vnquant.training.data import ModelId, TrainingData
from vnquant.training.kernels import PLAIN_KERNELS
from vnquant.training.stack import Stack

RATE = TrainingSpec().learning_rate
CHOICES = ((32, 1.0), (64, 1.0), (64, 2**0.5), (64, 2.0))
"""Batch, and what the learning rate is multiplied by; the first is what the others meet."""


def load(prices: Path | None, symbols: list[str], device: str, spec: RunSpec) -> TrainingData:
    """The symbols' training and validation parts on the device."""
    raw = open_source("folder" if prices else "synthetic", prices).load(symbols)
    calendar = sessions(raw)
    clean = inspect(raw, calendar, max_gap=spec.windows.max_gap).clean
    panel = build_panel(clean, calendar, spec.windows.horizon)
    windows = split(panel, spec.windows)
    scalers = {w.symbol: fit_scaler(panel, w) for w in windows if len(w.train)}
    place, dtype = torch.device(device), dtype_of(device)
    return TrainingData.build(panel, {0: windows}, scalers, spec.windows.lookback, place, dtype)


def train(
    data: TrainingData, model: ModelSpec, member: int, training: TrainingSpec, device: str
) -> tuple[list[float], np.ndarray]:
    """Seconds of each epoch, and the best validation loss of each symbol's model."""
    features = data.features.shape[1]
    shape = Shape.of(
        model, member, features=features, lookback=data.lookback, horizon=data.targets.shape[1]
    )
    # A symbol that is hardly traded may have no window in one of the two parts.
    ids = [ModelId(s, member) for s in data.train if len(data.train[s]) and len(data.validation[s])]
    # A few epochs on a CPU do not earn back what compiling costs.
    kernels = kernels_for(shape, device) if device == "cuda" else PLAIN_KERNELS
    stack = Stack(shape, ids, model, training, data, kernels)
    stack.initialise()
    times = []
    while stack.active:
        synchronise(device)
        began = time.perf_counter()
        for _ in range(stack.round_steps):
            stack.train_step()
        stack.end_round()
        synchronise(device)
        times.append(time.perf_counter() - began)
    best = {m: e.best_loss for m, e in zip(stack.models, stack.ledger, strict=True)}
    return times, np.array([np.nan if best[m] is None else best[m] for m in sorted(best)])


def compare(
    data: TrainingData, model: ModelSpec, epochs: int, seeds: int, device: str
) -> list[dict[str, Any]]:
    """A row for each choice; seeds are the outer loop, so that choices take turns."""
    times: dict[tuple[int, float], list[float]] = {c: [] for c in CHOICES}
    losses: dict[tuple[int, float], list[np.ndarray]] = {c: [] for c in CHOICES}
    for seed in range(seeds):
        for batch, factor in CHOICES:
            training = TrainingSpec(
                seed=seed,
                epochs=epochs,
                batch_size=batch,
                learning_rate=RATE * factor,
                patience=None,
            )
            took, best = train(data, model, 0, training, device)
            times[batch, factor] += took[1:]  # the first may compile
            losses[batch, factor].append(best)
    reference = CHOICES[0]
    base_time = statistics.median(times[reference])
    rows = []
    for choice in CHOICES:
        difference = np.concatenate(losses[choice]) - np.concatenate(losses[reference])
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        middle = statistics.median(times[choice])
        rows.append(
            {
                "batch": choice[0],
                "learning rate": f"{RATE * choice[1]:.2e}",
                "models": len(difference),
                "s per epoch": round(middle, 3),
                "times batch 32": round(middle / base_time, 2),
                "best validation loss": round(float(np.concatenate(losses[choice]).mean()), 4),
                "minus batch 32": f"{difference.mean():+.4f}",
                "s.e.": f"{error:.4f}",
            }
        )
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(preset="small")
    parser.add_argument("--prices", type=Path, help="default: simulated prices")
    parser.add_argument("--symbols", type=int, default=len(VN102))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    symbols = sorted(VN102)[: args.symbols]
    windows = {"validation_start": "2022-07-01", "test_start": "2023-01-03"}
    spec = RunSpec(symbols=tuple(symbols), windows=windows, model=PRESETS[args.preset])
    data = load(args.prices, symbols, args.device, spec)
    command = command_line("benchmarks.batch_size", args.prices)
    result = provenance(args.device) | {"command": command}
    result |= {"preset": args.preset, "epochs": args.epochs}
    rows = result["rows"] = compare(data, spec.model, args.epochs, args.seeds, args.device)
    body = [
        f"Preset `{args.preset}`, first member, {args.symbols} symbols, {args.epochs} epochs,"
        f" {args.seeds} seeds, {'real' if args.prices else 'simulated'} prices, validation in the"
        " second half of 2022. Below 0 is better than batch 32; the standard error is over"
        " models, which share the market's days, so it is too small.",
        "",
        table_of(rows),
    ]
    publish(args.output, "batch-size", result, body)


if __name__ == "__main__":
    main()
