"""What a container costs: the same run on the bare host and in an image, in turns.

``python -m benchmarks.containers [IMAGE]``. Both use one thread and the same spec; the stage's own
seconds are compared, so that start-up is apart, and start-up is measured by itself. Turns of one
kind differ by some per cent, so pairs are compared, each kind going first in half of them, and the
interval of their median is part of the result.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, table, write
from vnquant.host import launch as starting
from vnquant.host.targets import LaunchSpec
from vnquant.spec import PRESETS, RunSpec
from vnquant.workspace import Workspace

ROUNDS = 8


def spec(seed: int) -> RunSpec:
    return RunSpec(
        symbols=("FPT", "VCB"),
        data={"start": "2017-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=PRESETS["small"],
        training={"epochs": 4, "patience": None, "seed": seed},
    )


def seconds(target: str, image: str | None, folder: Path, seed: int) -> tuple[float, float]:
    """Seconds of the train stage, and of everything from start to end."""
    workspace = Workspace(folder / f"{target}-{seed}").create()
    run = workspace.run(spec(seed))
    run.prepare()
    launch = LaunchSpec(
        target=target,  # type: ignore[arg-type]
        workspace=workspace.path,
        run_id=run.spec.run_id,
        stages=("train",),
        words=("--threads", "1", "--quiet"),
        image=image,
    )
    began = time.perf_counter()
    state = starting.follow(starting.begin(launch), print, print)
    if state.exit_code != 0:
        raise RuntimeError(f"{target}: {state}")
    whole = time.perf_counter() - began
    manifest = json.loads((run.path / "manifest.json").read_text())
    return manifest["stages"]["train"]["training_seconds"], whole


def start_up(image: str) -> float:
    """Seconds of the entry point's help in a fresh container, median of five."""
    call = ["docker", "run", "--rm", "--network", "none", image, "--help"]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(call, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    image = sys.argv[1] if len(sys.argv) > 1 else "vnquant:cpu"
    found: dict[str, list[tuple[float, float]]] = {"local": [], "cpu": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(ROUNDS):
            turn = [("local", None), ("cpu", image)]
            for target, tag in turn if seed % 2 == 0 else reversed(turn):
                found[target].append(seconds(target, tag, Path(folder), seed))
    bare, inside = (statistics.median(t for t, _ in found[k]) for k in ("local", "cpu"))
    pairs = zip(found["local"], found["cpu"], strict=True)
    percent = sorted(100 * (c / b - 1) for (b, _), (c, _) in pairs)
    result: dict[str, Any] = {
        **provenance("cpu"),
        "image": image,
        "bare_seconds": round(bare, 2),
        "container_seconds": round(inside, 2),
        "overhead_percent": round(statistics.median(percent), 1),
        # Of 8 pairs, the second and the seventh enclose the median with 93 % (binomial).
        "overhead_interval": f"{percent[1]:+.1f} to {percent[-2]:+.1f}",
        "start_up_seconds": round(start_up(image), 2),
        "turns": found,
    }
    names = (
        *("bare_seconds", "container_seconds", "overhead_percent", "overhead_interval"),
        "start_up_seconds",
    )
    print(table(names, [[result[n] for n in names]]))
    print("written:", write(Path("build/bench"), f"{result['date']}-containers", result))


if __name__ == "__main__":
    main()
