"""The main job on a real price file, timed by stage: ``python -m benchmarks.fleet PRICES``.

Writes a dated report into benchmarks/reports. Used for the one run on a GPU that CI cannot make.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import REPORTS, provenance, table, write
from benchmarks.steps import compare
from vnquant.spec import PRESETS
from vnquant.training.kernels import PLAIN_KERNELS, compiled_kernels, fused_kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prices", type=Path)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--workspace", type=Path, default=Path("build/fleet"))
    parser.epilog = "Every other option is passed on to vnquant train."
    args, words = parser.parse_known_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command = ["train", "--universe", "vn102", *words]
    result: dict[str, Any] = {**provenance(device), "command": "vnquant " + " ".join(command)}
    began = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vnquant", *command),
            *("--prices", str(args.prices), "--workspace", str(args.workspace)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    result |= {
        "wall_seconds": round(time.perf_counter() - began, 1),
        "exit_code": done.returncode,
        "output": done.stdout,
    }
    run = max((args.workspace / "runs").glob("*"), key=lambda p: p.stat().st_mtime)
    manifest = json.loads((run / "manifest.json").read_text())
    trained = json.loads((run / "train" / "DONE.json").read_text())
    result |= {
        "run_id": manifest["run_id"],
        "spec_digest": manifest["spec_digest"],
        "data_snapshot": manifest["data_snapshot"],
        "models": trained["models"],
        "failed": trained["failed"],
        "stages": {k: v["seconds"] for k, v in manifest["stages"].items()},
        "memory": manifest["stages"]["train"]["memory"],
    }
    if device == "cuda":
        kernels = {
            "eager": PLAIN_KERNELS,
            "compiled": compiled_kernels(),
            "fused": fused_kernels(),
        }
        result["steps"] = {
            name: compare(PRESETS["base"], (1, 102), device, torch.bfloat16, kernels=k, repeats=10)
            for name, k in kernels.items()
        }
    name = f"{dt.date.today().isoformat()}-fleet-{'-'.join(result['machine'].lower().split()[:3])}"
    write(args.out, name, result)
    (args.out / f"{name}.md").write_text(to_markdown(result), encoding="utf-8")
    print(to_markdown(result))


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
        f"- {result['models']} models trained; exit code {result['exit_code']}; without enough "
        f"history: {', '.join(sorted(result['failed'])) or 'none'}",
        f"- wall time of the whole command **{result['wall_seconds']:.0f} s**; peak memory "
        f"{memory['peak_rss_bytes'] / 1e9:.1f} GB host, "
        f"{memory['peak_cuda_bytes'] / 1e9:.1f} GB GPU",
        "",
        table(["stage", "seconds"], stages),
        "",
    ]
    for name, rows in result.get("steps", {}).items():
        parts += [
            f"Training step of `base` with 4 layers, stacked {name} against the plain eager loop:",
            "",
            table(list(rows[0]), [list(r.values()) for r in rows]),
            "",
        ]
    return "\n".join([*parts, "```text", result["output"].rstrip(), "```", ""])


if __name__ == "__main__":
    main()
