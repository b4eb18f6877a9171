"""The main job on a real price file, timed by stage: ``python -m benchmarks.fleet PRICES``.

Writes a dated report into benchmarks/reports. Used for the one run on a GPU that CI cannot make.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import REPORTS, provenance, table, write
from vnquant.events import read_events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prices", type=Path, help="price file")
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--workspace", type=Path, default=Path("build/fleet"))
    parser.epilog = "Every other option is passed on to vnquant train."
    args, words = parser.parse_known_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command = ["train", "--universe", "vn102", *words]
    result: dict[str, Any] = {**provenance(device), "command": "vnquant " + " ".join(command)}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vnquant", *command),
            *("--prices", str(args.prices), "--workspace", str(args.workspace)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    run = max((args.workspace / "runs").glob("*"), key=lambda p: p.stat().st_mtime)
    result |= {"exit_code": done.returncode, "output": done.stdout, **facts(run)}
    report(result, args.out)
    print(to_markdown(result))


def facts(run: Path) -> dict[str, Any]:
    """What a run's own record says of it; its wall time is from the first event to the last."""
    manifest = json.loads((run / "manifest.json").read_text())
    events = read_events(run / "events.jsonl")
    first, last = (dt.datetime.fromisoformat(events[i]["time"]) for i in (0, -1))
    counted = next(e for e in reversed(events) if e["event"] == "training")
    return {
        "wall_seconds": round((last - first).total_seconds(), 1),
        "run_id": manifest["run_id"],
        "spec_digest": manifest["spec_digest"],
        "data_snapshot": manifest["data_snapshot"],
        "models": counted["models"],
        "stages": {k: v["seconds"] for k, v in manifest["stages"].items()},
        "memory": manifest["stages"]["train"]["memory"],
    }


def report(result: dict[str, Any], out: Path) -> None:
    """Write the result as JSON and as a page."""
    name = f"{result['date']}-fleet-{'-'.join(result['machine'].lower().split()[:3])}"
    write(out, name, result)
    (out / f"{name}.md").write_text(to_markdown(result), encoding="utf-8")


def to_markdown(result: dict[str, Any]) -> str:
    """The report people read."""
    code, memory = result["code"], result["memory"]
    stages = [[k, f"{v:.1f}"] for k, v in result["stages"].items()]
    parts = [
        f"# The main job on {result['machine']}",
        "",
        f"- date {result['date']}, commit {code['commit']}, torch {result['packages']['torch']}, "
        f"Python {result['python']}, {result['cores']} CPU cores",
        f"- command `{result['command']}` on the shared price file",
        f"- run {result['run_id']}, spec digest `{result['spec_digest']}`",
        f"- data snapshot `{result['data_snapshot']}`",
        f"- {result['models']} models trained; exit code {result['exit_code']}",
        f"- wall time from the first event to the last **{result['wall_seconds']:.0f} s**; "
        f"peak memory {memory['peak_rss_bytes'] / 1e9:.1f} GB host, "
        f"{memory['peak_cuda_bytes'] / 1e9:.1f} GB GPU",
        "",
        table(["stage", "seconds"], stages),
        "",
    ]
    return "\n".join([*parts, "```text", result["output"].rstrip(), "```", ""])


if __name__ == "__main__":
    main()
