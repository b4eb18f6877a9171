"""The trading calendar: which dates were sessions.

No calendar package knows Vietnam's closures well enough, so the package carries the list of
weekdays without trading (2010-01-01 to 2026-08-06). Inside that span a session is a weekday that is
not on the list; outside it, a weekday on which enough of the loaded shares traded.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt
import pandas as pd

Dates = npt.NDArray[np.datetime64]

COVERED = (np.datetime64("2010-01-01"), np.datetime64("2026-08-06"))
QUORUM = 0.25  # of the shares alive that must trade on a date outside the covered span


@cache
def _listed() -> dict[str, Dates]:
    text = resources.files("vnquant.market").joinpath("closures.csv").read_text(encoding="utf-8")
    days: dict[str, list[str]] = {}
    for row in csv.DictReader(text.splitlines()):
        days.setdefault(row["scope"], []).append(row["date"])
    return {scope: np.array(sorted(d), dtype="datetime64[D]") for scope, d in days.items()}


def closures() -> Dates:
    """Weekdays without trading on any exchange, datetime64[D], sorted."""
    return _listed()["all exchanges"]


def hose_halts() -> Dates:
    """Sessions of the other exchanges on which HOSE stood still, datetime64[D], sorted."""
    return np.sort(np.concatenate([d for s, d in _listed().items() if s != "all exchanges"]))


def between(first: np.datetime64, last: np.datetime64) -> Dates:
    """Sessions from ``first`` to ``last`` by the packaged list (weekdays beyond its span)."""
    days = np.arange(first, last + np.timedelta64(1, "D"), dtype="datetime64[D]")
    return days[np.is_busday(days) & ~np.isin(days, closures())]


def sessions(raw: pd.DataFrame) -> Dates:
    """The calendar of a set of bars, from their first to their last date.

    Args:
        raw: bars with columns symbol and date.

    Returns:
        datetime64[D], sorted, unique.
    """
    days = raw["date"].to_numpy().astype("datetime64[D]")
    if not len(days):
        return np.array([], dtype="datetime64[D]")
    inside = between(max(days.min(), COVERED[0]), min(days.max(), COVERED[1]))
    outside = days[(days < COVERED[0]) | (days > COVERED[1])]
    if len(outside):
        seen, traded = np.unique(outside, return_counts=True)
        span = raw.groupby("symbol", observed=True)["date"].agg(["min", "max"])
        first = np.sort(span["min"].to_numpy().astype("datetime64[D]"))
        last = np.sort(span["max"].to_numpy().astype("datetime64[D]"))
        alive = np.searchsorted(first, seen, side="right") - np.searchsorted(last, seen)
        seen = seen[np.is_busday(seen) & (traded >= QUORUM * alive)]
        inside = np.union1d(inside, seen)
    return inside
