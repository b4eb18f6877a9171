"""Forecasts of a whole fleet: ``python -m benchmarks.inference --device cpu|cuda``.

Times for all symbols x 3 members of a preset, untrained (a forecast's cost does not depend on the
weights), on simulated prices: reading the models, forecasting with each variant (first call, which
compiles or quantises where that is needed, and later ones, taking turns), and on a CPU
``vnquant forecast`` in a process of its own from start to the table, for one symbol and for all.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import (
    command_line,
    in_turns,
    median_ratio,
    provenance,
    publish,
    synchronise,
    table,
    table_of,
)
from benchmarks.roofline import options, shape_of
from vnquant.features.panel import Panel, build_panel
from vnquant.features.windows import Scaler, split
from vnquant.inference.predictor import groups, load_models, predict
from vnquant.inference.variants import VARIANTS
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.synthetic import SyntheticMarket
from vnquant.market.universe import VN102
from vnquant.spec import PRESETS, RunSpec
from vnquant.stockformer.files import save_model
from vnquant.workspace import Run, Workspace

TARGETS = {"cpu": 1.0, "cuda": 0.05}
"""Seconds for all ensembles (issue 4, item 5)."""
TARGET_START = 3.0
"""Seconds from the command to its first forecast on a CPU."""


def trained(folder: Path, preset: str, symbols: list[str]) -> tuple[Run, Panel]:
    """A run as training leaves it, but with fresh weights."""
    spec = RunSpec(
        symbols=tuple(symbols),
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=PRESETS[preset],
    )
    run = Workspace(folder).create().run(spec)
    run.prepare()
    raw = SyntheticMarket().load(symbols)
    calendar = sessions(raw)
    panel = build_panel(inspect(raw, calendar, max_gap=10).clean, calendar, spec.windows.horizon)
    features = run.stage("features")
    panel.save(features / "panel")
    features.finish()
    rng = np.random.default_rng(0)
    scaler = Scaler(*(np.full(50, v, np.float32) for v in (0.0, 1.0)), 0.02).to_dict()
    models = run.stage("train") / "models"
    models.mkdir(parents=True, exist_ok=True)
    for member in range(len(spec.model.members)):
        shape = shape_of(spec.model, member)
        row = torch.from_numpy(shape.initial_row(rng))
        for symbol in symbols:
            meta = {"symbol": symbol, "member": member, "scaler": scaler}
            save_model(models / f"{symbol}.m{member}.safetensors", shape, row, meta)
    run.stage("train").finish(symbols=symbols)
    return run, panel


def timed(work: Callable[[], Any], device: str) -> tuple[Any, float]:
    synchronise(device)
    began = time.perf_counter()
    found = work()
    synchronise(device)
    return found, time.perf_counter() - began


def warm(run: Run, panel: Panel, device: str, rounds: int) -> dict[str, Any]:
    """Seconds of each variant for the newest window of every symbol."""
    folder = run.stage("train") / "models"
    models, reading = timed(lambda: load_models(folder, run.spec.symbols), device)
    ends = {
        w.symbol: np.array([w.latest])
        for w in split(panel, run.spec.windows)
        if w.latest is not None
    }
    models = [m for m in models if m.symbol in ends]
    place = torch.device(device)
    # torch's dynamic quantisation is for CPUs.
    builds = {k: b for k, b in VARIANTS.items() if not (k == "int8" and device == "cuda")}
    calls: dict[str, Callable[[], object]] = {}
    first = {}
    for name, build in builds.items():
        ready, made = timed(lambda b=build: list(groups(models, device=place, build=b)), device)
        calls[name] = lambda r=ready: predict(models, panel, ends, device=place, built=r)
        _, called = timed(calls[name], device)
        first[name] = (made, called)
    times = in_turns(calls, device, rounds=rounds)
    rows = [
        {
            "variant": name,
            "made ready, s": round(first[name][0], 3),
            "first forecasts, s": round(first[name][1], 3),
            "later, s": round(statistics.median(found), 4),
            "from": round(min(found), 4),
            "to": round(max(found), 4),
            "times eager": round(median_ratio(found, times["eager"]), 2),
        }
        for name, found in times.items()
    ]
    return {"ensembles": len(ends), "read_seconds": round(reading, 3), "rows": rows}


def cold(run: Run, symbols: list[str], rounds: int) -> list[float]:
    """Seconds of the command from nothing to its table, ascending."""
    workspace = run.path.parent.parent
    words = ["forecast", "--workspace", str(workspace), "--run", run.spec.run_id, "--json"]
    call = [sys.executable, "-m", "vnquant", *words, "--symbols", *symbols]
    run_it = lambda: subprocess.run(call, stdout=subprocess.DEVNULL, check=True)  # noqa: E731
    return sorted(timed(run_it, "cpu")[1] for _ in range(rounds))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--symbols", type=int, default=len(VN102))
    args = parser.parse_args()
    symbols = sorted(VN102)[: args.symbols]
    result = provenance(args.device) | {"command": command_line("benchmarks.inference")}
    result["preset"] = args.preset
    with tempfile.TemporaryDirectory() as folder:
        run, panel = trained(Path(folder), args.preset, symbols)
        result |= warm(run, panel, args.device, args.rounds)
        if args.device == "cpu":
            result["cold"] = {
                "one symbol": cold(run, symbols[:1], args.rounds),
                f"{len(symbols)} symbols": cold(run, symbols, args.rounds),
            }
    publish(args.output, "inference", result, page(result))


def page(result: dict[str, Any]) -> list[str]:
    """The report's lines."""
    device = "cuda" if result["gpu"] else "cpu"
    lines = [
        f"Preset `{result['preset']}`, {result['ensembles']} ensembles of three; reading and"
        f" checking their files took {result['read_seconds']} s. Target for later forecasts:"
        f" {TARGETS[device]} s.",
        "",
        table_of(result["rows"]),
    ]
    if "cold" in result:
        rows = [
            [what, *(f"{t:.2f}" for t in (statistics.median(s), s[0], s[-1]))]
            for what, s in result["cold"].items()
        ]
        lines += [
            "",
            "`vnquant forecast` from its start to the table (target for the first:"
            f" {TARGET_START:.0f} s):",
            "",
            table(["forecast of", "median, s", "from", "to"], rows),
        ]
    return lines


if __name__ == "__main__":
    main()
