"""Checks that data, windows and symbols know nothing of the future; cheap enough for every run.

Each returns what it found, nothing if all is well; `refuse` turns that into an error. What these
cannot see, because it happens inside a component, `vnquant.evaluation.probes` brings out.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vnquant.errors import DataError
from vnquant.features.panel import Panel
from vnquant.features.windows import Rows, Windows

RARE = 0.01
"""A list of symbols less likely than this, had it been drawn blindly, was chosen with hindsight."""


@dataclass(frozen=True)
class Leak:
    """One place where the future gets into the past."""

    where: str
    what: str


def refuse(found: Iterable[Leak]) -> None:
    """Stop a run that would judge itself on what it has seen.

    Raises:
        DataError: naming the first leak, if there is any.
    """
    for leak in found:
        raise DataError(
            leak.what, where=leak.where, fix="this is a fault of the program (docs/leaks.md)"
        )


def overlapping(panel: Panel, windows: Sequence[Windows]) -> list[Leak]:
    """Parts of the split that are not one after the other.

    A part ends with the last session of its targets, and a later part begins with the last session
    of its first window's inputs. Over all symbols together: shares of one market move together.
    """
    parts = {
        part: [(w.symbol, rows) for w in windows if len(rows := getattr(w, part))]
        for part in ("train", "validation", "test")
    }
    found = []
    for earlier, later in combinations([p for p in parts if parts[p]], 2):
        ends = {s: _last_target(panel, rows) for s, rows in parts[earlier]}
        begins = {s: int(panel.session[rows].min()) for s, rows in parts[later]}
        late, soon = max(ends, key=ends.__getitem__), min(begins, key=begins.__getitem__)
        if ends[late] >= begins[soon]:
            end, begin = panel.calendar[[ends[late], begins[soon]]]
            what = f"targets of {earlier} reach {end}, {later} ({soon}) begins on {begin}"
            found.append(Leak(f"windows of {late}", what))
    return found


def _last_target(panel: Panel, rows: Rows) -> int:
    ahead = np.minimum(rows + panel.horizon, len(panel.session) - 1)
    return int(panel.session[ahead].max())


def misaligned(panel: Panel) -> list[Leak]:
    """Rows whose place in the calendar is not that of their date: "before" means nothing there."""
    found = []
    wrong = panel.calendar[np.clip(panel.session, 0, len(panel.calendar) - 1)] != panel.dates
    for i, symbol in enumerate(panel.symbols):
        rows = panel.rows(i)
        if wrong[rows].any():
            row = rows.start + int(wrong[rows].argmax())
            what = f"{panel.dates[row]} is held for session {panel.session[row]} of the calendar"
            found.append(Leak(symbol, what))
        elif (np.diff(panel.session[rows]) <= 0).any():
            found.append(Leak(symbol, "rows are not in order of time"))
    return found


def chosen_later(chosen_on: dt.date | None, test_starts: Sequence[dt.date]) -> list[Leak]:
    """Test parts that begin before the day on which the list of symbols was made."""
    if chosen_on is None:
        return [Leak("symbols", "nobody has recorded when this list of symbols was made")]
    early = [day for day in test_starts if day < chosen_on]
    if not early:
        return []
    what = (
        f"the list was made on {chosen_on}, {len(early)} of {len(test_starts)} test parts begin "
        f"before it (the first on {min(early)}): they are judged on survivors"
    )
    return [Leak("symbols", what)]


def survivors(
    lives: Mapping[str, tuple[dt.date, dt.date]], chosen: Collection[str], day: dt.date
) -> list[Leak]:
    """A choice of symbols that suspiciously few have left since ``day``.

    Args:
        lives: first and last session of every symbol that was ever listed.
        chosen: the symbols judged.
        day: first session of the test part.
    """
    end = max(last for _, last in lives.values())
    there = {s for s, (first, last) in lives.items() if first <= day <= last}
    gone = {s for s in there if lives[s][1] < end}
    mine = there & set(chosen)
    lost = len(mine & gone)
    chance = _at_most(lost, len(there), len(gone), len(mine))
    if chance >= RARE:
        return []
    what = (
        f"{lost} of {len(mine)} chosen symbols have left since {day}, of all {len(there)} then "
        f"listed {len(gone)} have (chance {chance:.1e})"
    )
    return [Leak("symbols", what)]


def _at_most(count: int, population: int, marked: int, drawn: int) -> float:
    """Hypergeometric: the chance of at most ``count`` marked among ``drawn``."""
    ways = sum(
        math.comb(marked, k) * math.comb(population - marked, drawn - k) for k in range(count + 1)
    )
    return ways / math.comb(population, drawn)
