"""What every measurement carries: date, machine, versions, commit; and how a table is printed."""

from __future__ import annotations

import datetime as dt
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from vnquant.accelerators.cpu import processor_name
from vnquant.accelerators.profile import usable_cores
from vnquant.manifest import code_version, package_versions

REPORTS = Path(__file__).resolve().parent / "reports"


def provenance(device: str) -> dict[str, Any]:
    """Where and with what a measurement was made."""
    return {
        "date": dt.date.today().isoformat(),
        "machine": torch.cuda.get_device_name(0) if device == "cuda" else processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "code": code_version(),
    }


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str, *, repeats: int, warm_up: int = 1) -> float:
    """Median wall time of one call, after warm-up, with the device idle on both sides."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        synchronise(device)
        began = perf_counter()
        work()
        synchronise(device)
        times.append(perf_counter() - began)
    return sorted(times)[len(times) // 2]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(v) for v in row) + " |" for row in rows]
    return "\n".join(lines)


def write(folder: Path, name: str, result: dict[str, Any]) -> Path:
    """Write a result as JSON and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")
    return path
