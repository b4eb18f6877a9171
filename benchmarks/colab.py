"""What the Colab path costs, on the emulator: overhead, recovery after a reclaim, bytes moved.

``python -m benchmarks.colab`` needs what ``./just test-colab`` needs. The same job is run locally
and on a machine of the emulator in turns; then a longer one loses its machine again and again. Both
the job and the emulated machine share the cores of this one, so differences and parts of one run
count. What Google's service adds (allocation, a slow network, packages to download) is not in here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.colab_runs import SYMBOLS, overhead, recovery
from benchmarks.record import REPORTS, command_line, provenance, publish, table, table_of
from tests.colab.conftest import EMULATOR, ROOT, TOOL, Emulator
from vnquant.colab_agent import missing

ACCOUNT = "dev@example.test"


def span(values: Sequence[float], digits: int = 1) -> str:
    """Median and range."""
    return (
        f"{statistics.median(values):.{digits}f}"
        f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    )


def spans(rows: Sequence[dict[str, float]], *names: str) -> list[str]:
    return [span([row[name] for row in rows]) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each target")
    parser.add_argument("--reclaims", type=int, default=5, help="machines taken from one run")
    parser.add_argument("--epochs", type=int, default=100, help="of the job that ends by itself")
    parser.add_argument("--poll", type=int, default=5, help="seconds between two questions")
    parser.add_argument("--output", type=Path, default=REPORTS, help="folder of the report")
    args = parser.parse_args()
    if not EMULATOR.is_file() or not (TOOL / "bin" / "colab").exists():
        sys.exit("needs the emulator and the colab command: python tools/colab.py --test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "emulator").mkdir()
        emulator = Emulator(folder / "emulator")
        drive = folder / "emulator" / "state" / "drive" / ACCOUNT
        os.environ |= {
            "VNQUANT_COLAB": str(emulator.colab),
            "VNQUANT_COLAB_PYTHON": sys.executable,
            "VNQUANT_COLAB_POLL": str(args.poll),
        }
        try:
            result = overhead(folder, drive, args.rounds, args.epochs)
            result["recoveries"] = recovery(emulator, folder, drive, args.reclaims)
        finally:
            emulator.close()
            if Path("/content").is_symlink():
                Path("/content").unlink()
    result["to_install"] = missing(ROOT / "requirements" / "runtime.txt").count("==")
    result["load"] = round(os.getloadavg()[1], 1)
    result |= {"poll": args.poll, "epochs": args.epochs, "symbols": SYMBOLS}
    result |= provenance("cpu") | {"command": command_line("benchmarks.colab")}
    publish(args.output, "colab", result, page(result))


def page(result: dict[str, Any]) -> list[str]:
    """The report's lines."""
    here, there = result["turns"]["local"], result["turns"]["colab"]
    more = [c["whole"] - a["whole"] for a, c in zip(here, there, strict=True)]
    ratio = [c["whole"] / a["whole"] for a, c in zip(here, there, strict=True)]
    jobs = [c["job"] / a["job"] for a, c in zip(here, there, strict=True)]
    names = ("packed and allocated", "made ready", "noticed and fetched", "released")
    recoveries, moved = result["recoveries"], result["moved"]
    return [
        "The unmodified `colab` command against the emulator on loopback, which shares this"
        f" machine's cores with everything else: ratios and differences within a round count. Job:"
        f" stage train, {' '.join(result['symbols'])}, {result['epochs']} epochs of a small"
        f" network; the machine is asked every {result['poll']} s (30 by default). Median"
        " (range), seconds unless said otherwise. Load average of"
        f" the last five minutes at the end: {result['load']}.",
        "",
        f"## The same job here and there, {len(here)} rounds",
        "",
        table(
            ["", "whole", "before the first event", "job", "after the last event"],
            [
                [name, *spans(rows, "whole", "before", "job", "after")]
                for name, rows in (("local", here), ("colab", there))
            ],
        ),
        "",
        f"More on the Colab path: {span(more)} s, {span(ratio, 2)} times the local whole; the job"
        f" itself {span(jobs, 2)} times. Of it:",
        "",
        table(
            [*names, "controller's processor seconds"],
            [spans(there, *names, "controller's processor seconds")],
        ),
        "",
        f"## From a reclaim to the first new epoch, {len(recoveries)} reclaims of one run"
        " that saves a checkpoint after each epoch",
        "",
        table(list(recoveries[0]), [spans(recoveries, *recoveries[0])]),
        "",
        "`pause` holds the release of the lost machine and 5 s that the controller waits before it"
        " starts again; `made ready` holds mounting, upload, installation and what comes back from"
        " Drive. Allocation is the emulator's. Beside the wheel,"
        f" {result['to_install']} packages had to be installed; on a machine of Colab's, more.",
        "",
        f"## Bytes moved by one run, {len(moved)} runs",
        "",
        table_of([{name: span([m[name] for m in moved], 0) for name in moved[0]}]),
        "",
        "Payload, without what HTTP and the websocket add: to the machine go the bundle (wheel,"
        " lock, spec) and the questions, from it come answers and results. `to Drive` counts a file"
        " again each time it is written.",
    ]


if __name__ == "__main__":
    main()
