"""How fast one process trains on given cores: ``python -m vnquant.training.probe``.

Started by `vnquant.stages.layout`, several at a time, to see how processes share a processor. The
job is one JSON line on stdin; after ``ready`` it waits for another line, takes steps of a small
stack with made-up data for a while, and prints steps and seconds as JSON. A step's cost does not
depend on the values.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vnquant.accelerators import affinity

if TYPE_CHECKING:
    from vnquant.training.stack import Stack

MODELS = 4
"""Wide enough that products are those of a real stack, small enough for a process on every core."""
ROWS = 640


def main() -> None:
    job = json.loads(sys.stdin.readline())
    affinity.bind(job["cpus"])  # before torch is loaded: its threads inherit the binding

    import numpy as np
    import torch

    from vnquant.accelerators.cpu import keep_freed_memory
    from vnquant.spec import RunSpec
    from vnquant.stockformer.layout import Shape
    from vnquant.training.data import ModelId, TrainingData
    from vnquant.training.stack import Stack

    torch.set_num_threads(len(job["cpus"]))
    keep_freed_memory()
    spec = RunSpec.model_validate_json(job["spec"])
    lookback, horizon = spec.windows.lookback, spec.windows.horizon
    make = torch.Generator().manual_seed(0)
    names = [f"S{i}" for i in range(MODELS)]
    ends = np.arange(lookback - 1, ROWS)
    data = TrainingData(
        torch.randn(ROWS, job["features"], generator=make),
        torch.randn(ROWS, horizon, generator=make),
        dict.fromkeys(names, ends),
        dict.fromkeys(names, ends[:1]),
        lookback,
    )
    shape = Shape.of(spec.model, 0, features=job["features"], lookback=lookback, horizon=horizon)
    stack = Stack(shape, [ModelId(n, 0) for n in names], spec.model, spec.training, data)
    stack.initialise()
    step = endless(stack)
    step()
    step()
    _tell("ready")
    sys.stdin.readline()
    began, steps = time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - began < job["seconds"]:
        step()
        steps += 1
    took = time.perf_counter() - began
    _tell(json.dumps({"steps": steps, "seconds": took}))


def endless(stack: Stack) -> Callable[[], None]:
    """A function that takes one step, in the same round again and again."""

    def step() -> None:
        if stack.inner >= stack.round_steps:
            stack.resume_at(0, 0)
        stack.train_step()

    return step


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
