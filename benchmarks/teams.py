"""Two teams on unequal cores: one core is throttled to 60 %, and both take from one queue.

``sudo python -m benchmarks.teams`` (a quota needs a control group of one's own). The same job runs
three times from the same features: on the whole core alone, on the throttled core alone, and on
both as two teams. Two ideals are given for the third: from what each core needed alone, which also
counts what they take from each other in caches and memory, and from their rates in the third run,
which counts waiting only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, table, write
from vnquant.events import read_events
from vnquant.market.universe import VN102
from vnquant.spec import PRESETS, RunSpec
from vnquant.workspace import Workspace

SHARE = 0.6
PERIOD = 50_000
SYMBOLS, EPOCHS = 12, 2


@contextlib.contextmanager
def throttled(share: float) -> Iterator[Path]:
    """A control group that may use so much of one CPU; yields the file that takes process ids."""
    first = Path("/sys/fs/cgroup/cpu")
    version1 = first.is_dir()
    group = (first if version1 else first.parent) / f"vnquant-bench-{os.getpid()}"
    group.mkdir()
    try:
        if version1:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD)))
        else:
            (group / "cpu.max").write_text(f"{int(share * PERIOD)} {PERIOD}")
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def train(folder: Path, *words: str, cpus: list[int], procs: Path | None = None) -> dict[str, Any]:
    """Run stage train on some CPUs; returns its entry in the manifest.

    Args:
        procs: throttle the process, or the second of two teams, by this control group.
    """
    (spec,) = folder.glob("runs/*/spec.json")
    command = [sys.executable, "-m", "vnquant", "run", "train", "--spec", str(spec), "-q"]
    process = subprocess.Popen(
        [*command, "-w", str(folder), "--stack-width", "8", *words],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),  # noqa: PLW1509 (one thread only)
    )
    if procs is not None and "2" not in words:
        procs.write_text(str(process.pid))
    while process.poll() is None and procs is not None and "2" in words:
        started = [e for e in read_events(spec.parent / "events.jsonl") if "pid" in e]
        if len(started) == 2:
            procs.write_text(str(started[1]["pid"]))
            break
        time.sleep(0.01)
    if process.wait() != 0:
        raise RuntimeError(f"vnquant ended with exit code {process.returncode}")
    manifest = json.loads((spec.parent / "manifest.json").read_text())
    stage: dict[str, Any] = manifest["stages"]["train"]
    return stage


def main() -> None:
    fast, slow = sorted(os.sched_getaffinity(0))[:2]
    job = RunSpec(
        symbols=tuple(sorted(VN102)[:SYMBOLS]),
        data={"start": "2014-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=PRESETS["small"],
        training={"epochs": EPOCHS, "patience": None},
    )
    with tempfile.TemporaryDirectory() as made, throttled(SHARE) as procs:
        first = Path(made) / "0"
        run = Workspace(first).create().run(job)
        run.prepare()
        words = ["run", "features", "--spec", str(run.path / "spec.json"), "-w", str(first), "-q"]
        subprocess.run([sys.executable, "-m", "vnquant", *words], check=True, stdout=2)
        both, alone = Path(made) / "1", Path(made) / "2"
        shutil.copytree(first, both)
        shutil.copytree(first, alone)
        whole = train(first, "--teams", "1", cpus=[fast])
        part = train(alone, "--teams", "1", cpus=[slow], procs=procs)
        together = train(both, "--teams", "2", cpus=[fast, slow], procs=procs)
    ideal_alone = 1 / (1 / whole["training_seconds"] + 1 / part["training_seconds"])
    teams = together["teams"]
    rates = [t["steps"] / t["busy_seconds"] for t in teams]
    ideal_here = sum(t["steps"] for t in teams) / sum(rates)
    makespan = max(t["seconds"] for t in teams)
    result = {
        **provenance("cpu"),
        "share": SHARE,
        "models": 3 * SYMBOLS,
        "fast_alone_seconds": whole["training_seconds"],
        "slow_alone_seconds": part["training_seconds"],
        "together_seconds": together["training_seconds"],
        "ideal_from_alone_seconds": round(ideal_alone, 2),
        "over_ideal_from_alone": round(together["training_seconds"] / ideal_alone, 3),
        "makespan_seconds": makespan,
        "ideal_from_rates_seconds": round(ideal_here, 2),
        "over_ideal_from_rates": round(makespan / ideal_here, 3),
        "teams": teams,
    }
    rows = [
        ["whole core alone", whole["training_seconds"]],
        [f"core at {SHARE:.0%} alone", part["training_seconds"]],
        ["both, two teams, one queue", together["training_seconds"]],
        ["ideal, from the two alone", round(ideal_alone, 2)],
        ["both, without start-up", makespan],
        ["ideal, from their rates together", round(ideal_here, 2)],
    ]
    print(table(["", "seconds"], rows))
    print("written:", write(Path("build/bench"), f"{result['date']}-teams", result))


if __name__ == "__main__":
    main()
