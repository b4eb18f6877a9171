"""One process with all cores beside several with fewer: ``python -m benchmarks.layouts``.

The trial that `vnquant.stages.layout` makes before a long job, for two sizes of model, in turns.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import command_line, median_ratio, provenance, publish, table_of
from benchmarks.roofline import options
from vnquant.accelerators import affinity
from vnquant.accelerators.topology import read
from vnquant.events import Events
from vnquant.spec import PRESETS, RunSpec
from vnquant.stages import layout, run_stage
from vnquant.stages.context import Context
from vnquant.training.probe import MODELS
from vnquant.workspace import Workspace


def measure(folder: Path, preset: str, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row for each layout of this machine."""
    spec = RunSpec(
        symbols=("FPT",),
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=PRESETS[preset],
    )
    workspace = Workspace(folder).create()
    run = workspace.run(spec)
    run.prepare()
    ctx = Context(workspace, run, Events(None))
    run_stage(ctx, "features")
    ways = layout.candidates(read(), None, affinity.given(), 99)
    found: dict[str, list[float]] = {str(way): [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[str(way)].append(layout.measure(ctx, way, seconds))
    first = found[str(ways[0])]
    return [
        {
            "preset": preset,
            "processes": name,
            "model-steps/s": round(MODELS * statistics.median(rates), 2),
            "least": round(MODELS * min(rates), 2),
            "most": round(MODELS * max(rates), 2),
            "times the first": round(median_ratio(rates, first), 3),
        }
        for name, rates in found.items()
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    args = parser.parse_args()
    result = provenance("cpu") | {"command": command_line("benchmarks.layouts")}
    with tempfile.TemporaryDirectory() as folder:
        result["rows"] = [
            row
            for preset in ("small", "base")
            for row in measure(Path(folder) / preset, preset, args.rounds, args.seconds)
        ]
    rows = result["rows"]
    body = [
        f"Stacks of {MODELS} models in every process, all processes at the same time.",
        "",
        table_of(rows),
    ]
    publish(args.output, "layouts", result, body)


if __name__ == "__main__":
    main()
