"""Collecting 289 symbols from a loopback service that keeps time and misbehaves for a few of them.

``python -m benchmarks.prices`` runs the command ``vnquant prices fetch`` at stated rates against
the server that the tests use, and counts the requests as that server saw them. The histories are
simulated, 2019 to 2023. No figure here is about a real host.
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.record import provenance, table_of, write
from tests.market.collect.fake import Fake, Quirks, serving
from vnquant.market.synthetic import SyntheticMarket

SYMBOLS = 289
LARGE, CAPPED = Quirks(), Quirks(page_cap=20, window=65, value_unit=1e9)
ONCE = ["429:2", "truncated", "html", "502", "hang", "reset", "moved"]
ALWAYS = ["403", "html", "truncated"]
SINCE_JUNE = ["--start", "2023-06-01"]
JOBS = [
    ("cafef, whole history in one answer", "cafef", LARGE, "2/s", ["--end", "2023-12-22"]),
    ("the same folder a week later", "cafef", LARGE, "2/s", []),
    ("vndirect", "vndirect", LARGE, "2/s", []),
    ("cafef, 20 rows and 65 sessions, from June 2023", "cafef", CAPPED, "20/s", SINCE_JUNE),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [job(Path(folder), *words) for words in JOBS]
    result = {**provenance("cpu"), "rows": rows}
    print(table_of(rows))
    print("written:", write(Path("build/bench"), f"{result['date']}-prices", result))


def market() -> dict[str, pd.DataFrame]:
    """289 listed shares: the simulated ones, and copies of them under invented names."""
    raw = SyntheticMarket(0).load(None, start=pd.Timestamp("2019-01-02").date(), end=None)
    bars = {str(s): f.reset_index(drop=True) for s, f in raw.groupby("symbol")}
    originals = itertools.cycle(list(bars.values()))
    letters = "QWXYZ"
    names = ("".join(n) for n in itertools.product(letters, repeat=3))
    invented = itertools.chain(names, (f"Q{n:02d}" for n in range(100)))
    while len(bars) < SYMBOLS:
        name = next(invented)
        bars.setdefault(name, next(originals).assign(symbol=name))
    return bars


def job(
    folder: Path, name: str, source: str, quirks: Quirks, rate: str, more: list[str]
) -> dict[str, Any]:
    """One row: a whole call of the command, as the server saw it."""
    fake = Fake(market(), quirks=quirks)
    symbols = sorted(fake.bars)
    for at, fault in enumerate(ONCE):
        fake.faults[symbols[20 + 30 * at]] = [fault]
    for at, fault in enumerate(ALWAYS):
        fake.faults[symbols[35 + 60 * at]] = [fault] * 99
    into = folder / f"{source}-{quirks.page_cap}"
    with serving(fake):
        command = [
            *(sys.executable, "-m", "vnquant", "prices", "fetch", "--source", source),
            *("--universe", "all", "--into", str(into), "--rate", rate, "--timeout", "5"),
            *("--base-url", fake.url, *more),
        ]
        began, spent = time.monotonic(), processor_seconds()
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"NO_PROXY": "127.0.0.1"},
        )
        seconds, spent = time.monotonic() - began, processor_seconds() - spent
    gaps = [b - a for a, b in itertools.pairwise(fake.asked_at)]
    return {
        "job": name,
        "limit": rate,
        "seconds": round(seconds, 1),
        "CPU seconds": round(spent, 1),
        "requests": len(fake.asked),
        "requests/s": round(len(gaps) / sum(gaps), 2),
        "shortest gap, s": round(min(gaps), 3),
        "files": len(list(into.glob("*.parquet"))),
        "result": done.stdout.splitlines()[0].partition(": ")[2],
        "exit code": done.returncode,
        "MB on disk": round(sum(f.stat().st_size for f in into.glob("*.parquet")) / 1e6, 1),
    }


def processor_seconds() -> float:
    """What all finished child processes have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
