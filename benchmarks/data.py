"""From a price file to the panel: ``python -m benchmarks.data [--prices FILE]``.

Reading, session calendar, quality checks and 50 features, each timed, for 102 symbols x 10 years
and for 289 symbols x 25 years: what is not quadratic costs the same per bar in both. The bars are
simulated ones, repeated further back under other names where more are wanted; with ``--prices`` a
real file is measured too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.record import REPORTS, command_line, provenance, publish, table_of
from vnquant.features.panel import build_panel
from vnquant.market.folder import PriceFolder
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.synthetic import SyntheticMarket
from vnquant.market.universe import VN102

SIZES = ((102, 10), (289, 25))
TARGET = 5.0
"""Seconds for the first of the sizes on two cores."""
SPAN = pd.Timedelta(days=417 * 7)
"""A little more than the simulated history, in whole weeks: weekdays stay weekdays."""


def grown(symbols: int, years: int) -> pd.DataFrame:
    """Simulated bars of so many symbols over so many years, sorted by symbol and date."""
    market = SyntheticMarket().load(None)
    older = [market.assign(date=market["date"] - i * SPAN) for i in range(1 + years // 8)]
    history = pd.concat(older, ignore_index=True)
    history = history[history["date"] > history["date"].max() - pd.DateOffset(years=years)]
    copies = [
        history.assign(symbol=history["symbol"] + (f"{i}" if i else ""))
        for i in range(-(-symbols // len(VN102)))
    ]
    names = [f"{s}{i}" if i else s for i in range(len(copies)) for s in sorted(VN102)][:symbols]
    bars = pd.concat(copies, ignore_index=True)
    bars = bars[bars["symbol"].isin(names)]
    return bars.sort_values(["symbol", "date"], ignore_index=True)


def stages(path: Path) -> tuple[dict[str, float], int]:
    """Seconds of each step from file to panel, and how many bars were read."""
    times: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        times[name] = time.perf_counter() - began
        return found

    raw = timed("read", lambda: PriceFolder(path).load())
    calendar = timed("calendar", lambda: sessions(raw))
    clean = timed("quality", lambda: inspect(raw, calendar, max_gap=10).clean)
    timed("50 features", lambda: build_panel(clean, calendar, 5))
    return times, len(raw)


def measure(path: Path, what: str, rounds: int) -> dict[str, Any]:
    """One row: median seconds of each step and of all."""
    found = [stages(path) for _ in range(rounds)]
    bars = found[0][1]
    middle = {n: statistics.median(t[n] for t, _ in found) for n in found[0][0]}
    totals = sorted(sum(t.values()) for t, _ in found)
    total = statistics.median(totals)
    return {
        "prices": what,
        "bars": bars,
        **{f"{n}, s": round(v, 3) for n, v in middle.items()},
        "all, s": round(total, 3),
        "from": round(totals[0], 3),
        "to": round(totals[-1], 3),
        "us per bar": round(total / bars * 1e6, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prices", type=Path, help="a real price file, measured too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=REPORTS)
    args = parser.parse_args()
    result = provenance("cpu")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for symbols, years in SIZES:
            path = Path(folder) / f"{symbols}x{years}.parquet"
            grown(symbols, years).to_parquet(path, index=False)
            what = f"simulated, {symbols} symbols x {years} years"
            rows.append(measure(path, what, args.rounds))
    if args.prices:
        rows.append(measure(args.prices, "the shared file, all symbols", args.rounds))
        # The path says nothing to others.
        result["command"] = ["benchmarks.data", "--prices", "PRICES"]
    else:
        result["command"] = command_line("benchmarks.data")
    result["rows"] = rows
    ratio = rows[1]["us per bar"] / rows[0]["us per bar"]
    body = [
        table_of(rows),
        "",
        f"Target for the first row: {TARGET:.0f} s on 2 cores. A bar of the second row costs"
        f" {ratio:.2f} times one of the first.",
    ]
    publish(args.output, "data", result, body)


if __name__ == "__main__":
    main()
