"""What a checkpoint costs, and how often to write one: ``python -m benchmarks.checkpoints``.

Saves the state of every member's stack of M / 3 models, 306 of `base` together by default, and
reads each back. From the cost d and a mean time between losses m, an interval t costs the share
d / t of the time for writing and t / (2 m) for work done twice; the best interval is
sqrt(2 d m) (Young 1974), refined by Daly (2006).
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import command_line, provenance, publish, synchronise, table, table_of
from benchmarks.roofline import options, shape_of
from benchmarks.steps import made_data
from vnquant.spec import PRESETS, ModelSpec, TrainingSpec
from vnquant.training.checkpoint import Checkpoints
from vnquant.training.data import ModelId
from vnquant.training.stack import Stack

LOSSES = {"idle for 90 minutes": 90 * 60.0, "12-hour limit": 12 * 3600.0}
"""Seconds between losses where Colab takes the machine away."""
INTERVALS = (60.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
"""Seconds; 1,200 is the default of --checkpoint-minutes."""


def overhead(interval: float, cost: float, between: float) -> float:
    """Share of the time lost to checkpoints and to work done twice."""
    return cost / interval + interval / (2 * between)


def young(cost: float, between: float) -> float:
    """Interval of least overhead, to first order."""
    return math.sqrt(2 * cost * between)


def daly(cost: float, between: float) -> float:
    """Interval between the end of a checkpoint and the start of the next, to higher order."""
    if cost >= 2 * between:
        return between
    share = math.sqrt(cost / (2 * between))
    return young(cost, between) * (1 + share / 3 + share**2 / 9) - cost


def stack_of(model: ModelSpec, member: int, models: int, device: str) -> Stack:
    """A stack with state worth saving: random moments, nothing that compresses."""
    data = made_data(models, device, torch.float32, windows=64)
    ids = [ModelId(s, member) for s in data.train]
    stack = Stack(shape_of(model, member), ids, model, TrainingSpec(), data)
    for tensor in (stack.weights, stack.first, stack.second, stack.best):
        tensor.normal_()
    return stack


def measure(model: ModelSpec, models: int, device: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each member: bytes, seconds to write and to read one checkpoint."""
    rows = []
    for member in range(len(model.members)):
        stack = stack_of(model, member, models // len(model.members), device)
        wrote, read = [], []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                synchronise(device)
                began = time.perf_counter()
                done = Checkpoints(Path(folder), "benchmark").save(stack)
                saved = time.perf_counter()
                fresh = Checkpoints(Path(folder), "benchmark")
                fresh.restore(stack, fresh.places())
                synchronise(device)
                wrote.append(saved - began)
                read.append(time.perf_counter() - saved)
                size = done.with_suffix(".safetensors").stat().st_size
        rows.append(
            {
                "layers": stack.shape.layers,
                "models": len(stack.models),
                "GB": round(size / 1e9, 3),
                "write, s": round(statistics.median(wrote), 2),
                "from": round(min(wrote), 2),
                "to": round(max(wrote), 2),
                "check and read, s": round(statistics.median(read), 2),
            }
        )
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--models", type=int, default=306, help="of all members together")
    args = parser.parse_args()
    result = provenance(args.device) | {"command": command_line("benchmarks.checkpoints")}
    rows = measure(PRESETS[args.preset], args.models, args.device, args.rounds)
    cost = sum(r["write, s"] for r in rows)
    result |= {"preset": args.preset, "rows": rows, "seconds": round(cost, 2)}
    result["best"] = {
        what: {"young_s": young(cost, between), "daly_s": daly(cost, between)}
        for what, between in LOSSES.items()
    }
    publish(args.output, "checkpoints", result, page(rows, cost))


def page(rows: list[dict[str, Any]], cost: float) -> list[str]:
    """The report's lines."""
    chosen = [
        [f"{t / 60:.0f} min", *(f"{overhead(t, cost, m):.2%}" for m in LOSSES.values())]
        for t in INTERVALS
    ]
    for name, best in (("Young", young), ("Daly", daly)):
        cells = [
            f"{best(cost, m) / 60:.1f} min: {overhead(best(cost, m), cost, m):.2%}"
            for m in LOSSES.values()
        ]
        chosen.append([f"best ({name})", *cells])
    return [
        table_of(rows),
        "",
        f"All together {cost:.2f} s. Share of the time lost at each interval, if the machine is"
        " lost as often as stated:",
        "",
        table(["interval", *LOSSES], chosen),
    ]


if __name__ == "__main__":
    main()
