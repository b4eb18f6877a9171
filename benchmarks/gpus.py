"""One GPU beside all of a host: ``python -m benchmarks.gpus PRICES --preset base --epochs 100``.

Stage train of the whole universe from the same features, first on every GPU with one team each and
then on one, with kernels compiled beforehand for both. Models are independent, so what is lost of
the ideal is starting processes, narrower stacks and whoever waits at the end.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import command_line, provenance, publish, table
from benchmarks.roofline import options
from vnquant.events import Event, read_events
from vnquant.market.universe import VN102
from vnquant.spec import PRESETS, RunSpec
from vnquant.workspace import Workspace


def run_module(*words: str) -> None:
    """``python -m`` and the words; what it prints is no part of the report."""
    subprocess.run([sys.executable, "-m", *words], check=True, stdout=sys.stderr)


def epoch_seconds(events: Iterable[Event]) -> float:
    """Seconds that an epoch of all models takes where no stack begins or ends.

    For each stack the median time from one epoch to the next, summed over the stacks of a team;
    of the teams, which work side by side, the slowest.
    """
    times: dict[int, list[list[dt.datetime]]] = {}
    for event in events:
        if event["event"] == "epoch":
            stacks = times.setdefault(event.get("team", 0), [])
            if event["epoch"] == 1:
                stacks.append([])
            stacks[-1].append(dt.datetime.fromisoformat(event["time"]))
    return max(
        sum(
            statistics.median((b - a).total_seconds() for a, b in pairwise(stack))
            for stack in stacks
        )
        for stacks in times.values()
    )


def train(folder: Path, spec: Path, teams: int) -> dict[str, Any]:
    """Run stage train; returns its entry in the manifest, and ``epoch_seconds``."""
    words = ["--spec", str(spec), "--workspace", str(folder), "--device", "cuda", "--quiet"]
    run_module("vnquant", "run", "train", *words, "--teams", str(teams))
    manifest = json.loads(next(folder.glob("runs/*/manifest.json")).read_text())
    stage: dict[str, Any] = manifest["stages"]["train"]
    stage["epoch_seconds"] = epoch_seconds(read_events(next(folder.glob("runs/*/events.jsonl"))))
    print(f"{teams} GPUs: {stage['training_seconds']} s", file=sys.stderr, flush=True)
    return stage


def weights(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("runs/*/train/models/*.safetensors")}


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(device="cuda")
    parser.add_argument("prices", type=Path)
    parser.add_argument("--symbols", type=int, default=len(VN102))
    parser.add_argument("--epochs", type=int, default=100)
    args = parser.parse_args()
    gpus = torch.cuda.device_count()
    job = RunSpec(
        symbols=tuple(sorted(VN102)[: args.symbols]),
        data={"source": "folder", "start": "2014-01-01"},
        windows={"validation_start": "2022-07-01", "test_start": "2023-01-03"},
        model=PRESETS[args.preset],
        training={"epochs": args.epochs, "patience": None},
    )
    with tempfile.TemporaryDirectory() as made:
        one, every = Path(made) / "one", Path(made) / "all"
        run = Workspace(one).create().run(job)
        run.prepare()
        spec = Path(made) / "run.json"
        spec.write_text(job.canonical_json())
        own = ["--spec", str(spec), "--workspace", str(one), "--prices", str(args.prices)]
        run_module("vnquant", "run", "features", *own, "--quiet")
        run_module("vnquant.training.precompile", str(spec), "--processes", "8")
        shutil.copytree(one, every)
        together = train(every, spec, gpus)
        alone = train(one, spec, 1)
        ours, theirs = weights(one), weights(every)
    equal = sum(ours[name] == theirs.get(name) for name in ours)
    command = command_line("benchmarks.gpus", args.prices)
    result = provenance("cuda") | {"command": command, "gpus": gpus}
    result |= {"preset": args.preset, "models": len(ours), "equal_models": equal}
    result |= {"one": alone, "all": together}
    for what in ("training", "busy", "epoch"):
        result[f"{what}_ratio"] = alone[f"{what}_seconds"] / together[f"{what}_seconds"]
    publish(args.output, "gpus", result, page(result))


def page(result: dict[str, Any]) -> list[str]:
    """The report's lines."""
    one, every, gpus = result["one"], result["all"], result["gpus"]
    keys = ["gpu", "units", "model-steps", "busy, s", "peak memory, GB"]
    rows = [
        [
            i,
            team["units"],
            team["steps"],
            f"{team['busy_seconds']:.1f}",
            f"{team['peak_cuda_bytes'] / 1e9:.1f}",
        ]
        for i, team in enumerate(every["teams"])
    ]
    return [
        f"{result['models']} models of `{result['preset']}`: stage train took"
        f" {every['training_seconds']:.1f} s on {gpus} GPUs and {one['training_seconds']:.1f} s on"
        f" one of them, a ratio of **{result['training_ratio']:.2f}** with everything counted, the"
        " start of the processes and reading the data included. From the first unit to the last it"
        f" took {every['busy_seconds']:.1f} s and {one['busy_seconds']:.1f} s, a ratio of"
        f" **{result['busy_ratio']:.2f}**. Between the first and the last epoch of each stack, an"
        f" epoch of all models took {every['epoch_seconds']:.3f} s and"
        f" {one['epoch_seconds']:.3f} s, a ratio of **{result['epoch_ratio']:.2f}**: what is left"
        f" of it when more epochs are trained. {result['equal_models']} of {result['models']}"
        " models have the same bits both ways.",
        "",
        table(keys, rows),
    ]


if __name__ == "__main__":
    main()
