"""How often shares rise, year by year: ``python -m benchmarks.base_rates --prices FILE``.

Whether one year's share of rises says anything of the next one's is what
`vnquant.evaluation.recalibration.PERSISTENCE` believes of it. Reads prices; trains nothing.
"""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.record import REPORTS, command_line, provenance, publish, table_of
from vnquant.evaluation.metrics import FLAT
from vnquant.evaluation.overlap import mean_test
from vnquant.features.panel import Panel, build_panel
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.sources import open_source
from vnquant.market.universe import VN102
from vnquant.spec import WindowSpec

HORIZON = int(WindowSpec.model_fields["horizon"].default)
MAX_GAP = int(WindowSpec.model_fields["max_gap"].default)
LEAST_SESSIONS = 200
"""Of a year that counts."""


def rises_by_session(panel: Panel) -> pd.Series:
    """Share of the symbols whose next `HORIZON` returns sum to a rise, by date ``[D]``."""
    known = np.isfinite(panel.targets).all(axis=1)
    up = panel.targets[known].astype(np.float64).sum(axis=1) > FLAT
    return pd.Series(up).groupby(panel.dates[known]).mean()


def by_year(rises: pd.Series) -> list[dict[str, Any]]:
    """For each year with at least `LEAST_SESSIONS`: sessions, share of rises, its error.

    Sessions count alike. The error is Newey and West's, for sums that overlap.
    """
    rows = []
    for year, part in rises.groupby(pd.DatetimeIndex(rises.index).year):
        if len(part) >= LEAST_SESSIONS:
            test = mean_test(part.to_numpy(np.float64), HORIZON)
            rows.append({"year": year, "sessions": len(part), "rises": test.mean, "s.e.": test.se})
    return rows


def persistence(shares: list[float]) -> float:
    """Correlation of the years' log-odds with those of the year after; needs three years."""
    odds = np.log(np.array(shares) / (1 - np.array(shares)))
    return float(np.corrcoef(odds[:-1], odds[1:])[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prices", type=Path, help="a real price file; default: simulated prices")
    parser.add_argument("--end", type=dt.date.fromisoformat, help="last session that is read")
    parser.add_argument("--output", type=Path, default=REPORTS)
    args = parser.parse_args()
    source = open_source("folder" if args.prices else "synthetic", args.prices)
    known = sorted(set(VN102) & set(source.known_symbols()))
    raw = source.load(known, start=None, end=args.end)
    calendar = sessions(raw)
    clean = inspect(raw, calendar, max_gap=MAX_GAP).clean
    rows = by_year(rises_by_session(build_panel(clean, calendar, HORIZON)))
    shares = [row["rises"] for row in rows]
    result = provenance("cpu") | {"command": command_line("benchmarks.base_rates", args.prices)}
    result |= {"years": rows, "persistence": persistence(shares)}
    shown = [{**r, "rises": f"{r['rises']:.1%}", "s.e.": f"{r['s.e.']:.1%}"} for r in rows]
    page = [
        f"Share of {raw['symbol'].nunique()} symbols that rise over the next {HORIZON} sessions.",
        "",
        table_of(shown),
        "",
        f"Standard deviation between years {np.std(shares, ddof=1):.1%}, mean error of a year"
        f" {np.sqrt(np.mean([r['s.e.'] ** 2 for r in rows])):.1%}. The log-odds of a year and of"
        f" the next one correlate by {result['persistence']:+.2f} ({len(rows) - 1} pairs).",
    ]
    publish(args.output, "base-rates", result, page)


if __name__ == "__main__":
    main()
