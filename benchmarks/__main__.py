"""Measure on this machine: ``./just bench``. Prints tables, writes JSON into build/bench."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import provenance, seconds, table, table_of, write
from benchmarks.steps import compare
from vnquant.accelerators.profile import open_profile
from vnquant.features.panel import build_panel
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.synthetic import SyntheticMarket
from vnquant.spec import PRESETS, TrainingSpec
from vnquant.training.kernels import PLAIN_KERNELS, Kernels, compiled_kernels, fused_kernels


def features() -> dict[str, Any]:
    """Ingest checks and 50 features of 102 simulated symbols."""
    raw = SyntheticMarket().load(None, start=None, end=None)
    calendar = sessions(raw)
    began = time.perf_counter()
    clean = inspect(raw, calendar, max_gap=10).clean
    checked = time.perf_counter()
    build_panel(clean, calendar, 5)
    done = time.perf_counter()
    return {
        "symbols": int(raw["symbol"].nunique()),
        "bars": len(raw),
        "quality_seconds": round(checked - began, 3),
        "features_seconds": round(done - checked, 3),
    }


def start_up() -> float:
    """Milliseconds of `vnquant --help`, median of nine."""
    call = [sys.executable, "-m", "vnquant", "--help"]
    run = lambda: subprocess.run(call, stdout=subprocess.DEVNULL, check=True)  # noqa: E731
    return round(seconds(run, "cpu", repeats=9) * 1e3, 1)


def fleet_memory(epochs: int) -> dict[str, Any]:
    """Peak memory of the 102 symbols with the small preset, in a process of its own."""
    words = ["train", "--universe", "vn102", "--preset", "small", "--epochs", str(epochs), "-q"]
    call = [sys.executable, "-m", "vnquant", *words, "--workspace", "build/bench/fleet"]
    began = time.perf_counter()
    done = subprocess.run(call, stdout=subprocess.DEVNULL, check=False)
    # From the run's own record: the kernel's figure for a child starts at the size its parent
    # had when it was forked.
    run = max(Path("build/bench/fleet/runs").glob("*"), key=lambda p: p.stat().st_mtime)
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    peak = stages["train"]["memory"]["peak_rss_bytes"]
    return {
        "epochs": epochs,
        "exit_code": done.returncode,
        "seconds": round(time.perf_counter() - began, 1),
        "peak_gb": round(peak / 1e9, 2),
    }


def kernel_sets(device: str) -> dict[str, Kernels]:
    """What a stack can be trained with here."""
    if device == "cpu":
        return {"eager": PLAIN_KERNELS}
    return {"eager": PLAIN_KERNELS, "compiled": compiled_kernels(), "fused": fused_kernels()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small stacks only, no fleet")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    args = parser.parse_args()
    profile = open_profile(TrainingSpec(), device="auto")
    device = profile.device
    result: dict[str, Any] = provenance(device)
    result["help_ms"] = start_up()
    result["features"] = features()
    sizes = (1, 8) if args.quick else (1, 8, 32, 102)
    dtype = profile.torch_dtype if device == "cuda" else torch.float32
    result["steps"] = {
        f"{preset}, {name}": compare(
            PRESETS[preset], sizes, device, dtype, kernels=kernels, repeats=3
        )
        for preset in ("small", "base")
        for name, kernels in kernel_sets(device).items()
    }
    if not args.quick:
        result["fleet"] = fleet_memory(epochs=1)
    print(f"{result['date']}, {result['machine']}, {result['cores']} cores, {result['code']}")
    print(f"\nvnquant --help: {result['help_ms']} ms\n")
    for part in ("features", "fleet"):
        if part in result:
            print(table(list(result[part]), [list(result[part].values())]), "\n")
    for name, rows in result["steps"].items():
        print(f"training step, {name}, against a plain per-symbol loop:\n")
        print(table_of(rows), "\n")
    print("written:", write(args.out, f"{result['date']}-bench", result))


if __name__ == "__main__":
    main()
