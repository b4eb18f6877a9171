"""CPU: threads follow the cores this process may use, and everything is float32."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from vnquant.accelerators.profile import Profile, usable_cores
from vnquant.spec import TrainingSpec


def processor_name() -> str:
    """The model name that Linux reports, else Python's guess."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def configure(training: TrainingSpec, *, threads: int | None, compiled: bool | None) -> Profile:
    # torch ignores affinity when it picks its thread count, so it is always set here.
    count = threads or usable_cores()
    torch.set_num_threads(count)
    dtype = "bfloat16" if training.precision == "bfloat16" else "float32"
    return Profile("cpu", processor_name(), dtype, count, bool(compiled))
