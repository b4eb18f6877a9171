"""Compile the Triton kernels of a run before its first step, without a GPU and side by side.

Triton compiles a kernel when it is first launched, one after the other. Here the very calls of a
training step are made on tensors without data ("meta"), with a driver that launches nothing, so
that Triton's cache on disk is filled by several processes while prices are still being read.
Triton keys its cache by source, options and capability: a later process on the GPU finds them all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vnquant.accelerators import launchers
from vnquant.features.catalogue import names_of
from vnquant.spec import RunSpec, load_spec
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.losses import per_model_loss
from vnquant.stockformer.model import Drop, sites
from vnquant.training.embedding import values_of
from vnquant.training.stack import VALIDATION_WINDOWS

MODELS = 2
"""Rows of the pretended stack; no kernel depends on how many there are."""
Launcher = Callable[[Any, Any], None]
"""Given a kernel's source and metadata instead of loading it."""
LARGEST_SHARED_MEMORY = 2**30
"""Bytes: more than any GPU has, since nothing is launched here."""


class DryDriver:
    """Stands in for Triton's driver: any capability, and launches that do nothing.

    Args:
        capability: major * 10 + minor, like 80 for an A100 and 90 for an H100.
        launcher: called with a kernel's source and metadata instead of loading it.
    """

    def __init__(self, capability: int, launcher: Launcher | None = None):
        self.capability = capability
        self._launcher = launcher
        self.utils = self

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": LARGEST_SHARED_MEMORY}

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        if self._launcher is not None:
            self._launcher(source, metadata)
        return lambda *_: None

    def load_binary(self, *_: Any) -> tuple[str, None, int, int, int]:
        # Module, function, registers, spills, most threads of a block.
        return "none", None, 0, 0, 1024


def shapes_of(spec: RunSpec) -> list[Shape]:
    """The distinct shapes of a run's members."""
    sizes = {"lookback": spec.windows.lookback, "horizon": spec.windows.horizon}
    members = range(len(spec.model.members))
    # A pooled model has an input more for each value of its embedding.
    own = len(names_of(spec.features.name))
    widths = {own, own + len(values_of(spec))}
    return sorted(
        {Shape.of(spec.model, m, features=n, **sizes) for m in members for n in widths},
        key=lambda s: -s.layers,
    )


def batches_of(spec: RunSpec) -> list[int]:
    """The distinct batch sizes of a run's phases, the first one first."""
    phases = (spec.pretrain, spec.training)
    return list(dict.fromkeys(phase.batch_size for phase in phases if phase is not None))


def trace(shape: Shape, batch: int, horizon: int) -> None:
    """Make every kernel call of a training step and of a validation, on tensors without data."""
    from vnquant.stockformer import fused
    from vnquant.training import triton_adamw

    def empty(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device="meta")

    def windows(count: int) -> torch.Tensor:
        return empty(MODELS, count, shape.lookback, shape.features, dtype=torch.bfloat16)

    rows, ints = empty(MODELS, shape.row), torch.int32
    drop = Drop(empty(MODELS, sites(shape), 2, dtype=ints), empty(MODELS, dtype=ints))
    target, weight = empty(MODELS, batch, horizon), empty(MODELS, batch)
    _, gradient = fused.gradient(
        shape, rows, windows(batch), drop, lambda raw: per_model_loss(raw, target, weight, 1.0)
    )
    first, second = empty(MODELS, shape.row), empty(MODELS, shape.row)
    moving = empty(MODELS, dtype=torch.bool)
    decay, step, rate = empty(shape.row), empty(MODELS, dtype=ints), empty(MODELS)
    triton_adamw.adamw_(rows, first, second, gradient, step, rate, decay, moving, 1.0)
    fused.outputs(shape, rows, windows(VALIDATION_WINDOWS))


def compile_for(
    spec: RunSpec,
    capability: int,
    part: int = 0,
    parts: int = 1,
    launcher: Launcher | None = None,
) -> int:
    """Compile every ``parts``-th kernel of a run, from the ``part``-th on, into Triton's cache.

    Changes Triton's driver of this process for good: call it in a process of its own.

    Returns:
        How many kernels this part has compiled, or found in the cache.
    """
    from triton import knobs
    from triton.runtime.driver import driver

    from vnquant.stockformer import fused

    driver.set_active(DryDriver(capability, launcher))
    seen: dict[str, int] = {}

    def someone_elses(*, repr: str, key: Any, **_: Any) -> bool:
        # Every part meets the kernels in the same order, so numbers mean the same in all of them.
        return seen.setdefault(f"{repr} {key}", len(seen)) % parts != part

    knobs.runtime.jit_cache_hook = someone_elses
    for shape in filter(fused.supports, shapes_of(spec)):
        for batch in batches_of(spec):
            trace(shape, batch, spec.windows.horizon)
    return sum(number % parts == part for number in seen.values())


def capability() -> int | None:
    """Of the first GPU, without opening it; None: the driver's tool knows of none."""
    words = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"(\d+)\.(\d)\b", done.stdout)
    return int(found[1]) * 10 + int(found[2]) if found else None


def main(words: Sequence[str] | None = None) -> None:
    """Compile a run's kernels, or a part of them; for an image, build or check its C modules."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("spec", type=Path, help="a run's spec.json")
    parser.add_argument("--capability", type=int, help="80: A100, 90: H100; default: this GPU's")
    parser.add_argument("--processes", type=int, default=1, help="to share the kernels among")
    parser.add_argument("--collect", type=Path, help="build Triton's C modules into this folder")
    parser.add_argument("--check", type=Path, help="all of Triton's C modules are in this folder")
    args = parser.parse_args(words)
    found = args.capability or capability()
    if found is None:
        return
    launcher: Launcher | None = launchers.load if launchers.compiler() else None
    if args.collect:
        launcher = launchers.collect(args.collect)
    elif args.check:
        launcher = launchers.check(args.check)
    spec = load_spec(args.spec)
    # Forked after torch has been imported, which takes longer than to compile a kernel.
    fork = multiprocessing.get_context("fork")
    crew = [
        fork.Process(target=compile_for, args=(spec, found, part, args.processes, launcher))
        for part in range(args.processes)
    ]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in crew))


if __name__ == "__main__":
    main()
