"""What every measurement carries: date, machine, versions, commit; and how a table is printed."""

from __future__ import annotations

import datetime as dt
import json
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
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
        "gpu": device == "cuda",
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


def in_turns(
    works: Mapping[str, Callable[[], object]], device: str, *, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each work in each round: all take a turn before any takes its next.

    What else runs on the machine then slows all of them, and the ratios of a round stay fair.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(seconds(work, device, repeats=1, warm_up=0))
    return found


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios of two works' turns in the same rounds."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def large_product(device: str, dtype: torch.dtype) -> tuple[int, Callable[[], object]]:
    """A large square product, what a step is held against: its operations, and the work."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3, lambda: a @ b


def matmul_rate(device: str, dtype: torch.dtype, *, repeats: int = 5) -> float:
    """Operations a second of a large square product here and now."""
    operations, work = large_product(device, dtype)
    return operations / seconds(work, device, repeats=repeats, warm_up=2)


def copy_rate(device: str, *, repeats: int = 5) -> float:
    """Bytes a second of a large copy, read and written both counted."""
    size = 2**30 if device == "cuda" else 2**28
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    took = seconds(lambda: target.copy_(source), device, repeats=repeats, warm_up=2)
    return 2 * size / took


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(v) for v in row) + " |" for row in rows]
    return "\n".join(lines)


def table_of(rows: Sequence[Mapping[str, object]]) -> str:
    """A markdown table of rows that all have the same keys, in the same order; at least one."""
    return table(list(rows[0]), [list(row.values()) for row in rows])


def write(folder: Path, name: str, result: dict[str, Any]) -> Path:
    """Write a result as JSON and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")
    return path


def publish(folder: Path, kind: str, result: dict[str, Any], body: Sequence[str]) -> Path:
    """Write a result as JSON and as a dated page, print the page, say where they are.

    Args:
        folder: `REPORTS`, or any other.
        kind: what was measured; with the date and the machine it names the files.
        result: `provenance` and the measurement.
        body: the page's lines below its head.
    """
    machine = "-".join(result["machine"].lower().split()[:3]) if result["gpu"] else "cpu"
    name = f"{result['date']}-{kind}-{machine}"
    code, packages = result["code"], result["packages"]
    command = " ".join(["python -m", *result["command"]])
    head = [
        f"# {kind.capitalize()}, {result['machine']}",
        "",
        f"- {result['date']}, {result['cores']} cores, {result['threads']} threads, torch"
        f" {packages['torch']}, Python {result['python']}, commit {code['commit']}"
        + (" with changes" if code.get("dirty") else ""),
        f"- `{command}`",
        "",
    ]
    page = "\n".join([*head, *body, ""])
    path = write(folder, name, result)
    path.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    print("written:", path)
    return path


def command_line(module: str, prices: Path | None = None) -> list[str]:
    """How this measurement was called, for its report; the folder written to is no part of it.

    Args:
        prices: the price file that was given, whose path says nothing to others.
    """
    words = sys.argv[1:]
    if "--output" in words:
        at = words.index("--output")
        words = words[:at] + words[at + 2 :]
    return [module, *("PRICES" if prices and w == str(prices) else w for w in words)]
