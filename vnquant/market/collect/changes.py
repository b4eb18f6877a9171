"""Does what a source says today agree with what it said before? Bar by bar, column by column."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

EXACT = ("open", "high", "low", "close", "volume")
VALUE_SLACK = 5.1e6
"""VND. A value given in billions with two decimals is off by up to 5 million."""
VALUE_SHARE = 0.001


class Change(NamedTuple):
    """What differs between two versions of one symbol's bars.

    Attributes:
        kind: ``readjusted``: only adj_close, as after a dividend, a bonus or a rights issue;
            ``corrected``: prices, volumes or days.
        days: how many of the compared days.
        compared: days in either version.
        example: the first difference in words.
    """

    kind: Literal["readjusted", "corrected"]
    days: int
    compared: int
    example: str


def find_change(stored: pd.DataFrame, fresh: pd.DataFrame, since: pd.Timestamp) -> Change | None:
    """Compare the days from ``since`` to ``stored``'s last; None if they agree.

    The published change_text is not compared: its wording is no fact about the bar.

    Args:
        stored: bars as they were, sorted by date, not empty.
        fresh: bars as they are now, sorted by date.
        since: the first date that ``fresh`` was asked for.
    """
    last = stored["date"].iloc[-1]
    old = stored[stored["date"] >= since].set_index("date")
    new = fresh[(fresh["date"] >= since) & (fresh["date"] <= last)].set_index("date")
    days = old.index.union(new.index)
    missing = days[~(days.isin(old.index) & days.isin(new.index))]
    both = old.index.intersection(new.index)
    old, new = old.loc[both], new.loc[both]
    moved = {c: (old[c] != new[c]).to_numpy() for c in (*EXACT, "adj_close")}
    gap = (old["value"] - new["value"]).abs().to_numpy()
    # A missing value is silent, not different.
    moved["value"] = gap > np.maximum(VALUE_SLACK, VALUE_SHARE * new["value"].abs().to_numpy())
    touched = np.logical_or.reduce(list(moved.values()))
    if not touched.any() and not len(missing):
        return None
    if len(missing):
        where = "stored" if missing[0] in stored["date"].to_numpy() else "served"
        example = f"{missing[0]:%Y-%m-%d} is only {where}"
    else:
        row = int(touched.argmax())
        column = next(c for c, m in moved.items() if m[row])
        was, now = old[column].iloc[row], new[column].iloc[row]
        example = f"{both[row]:%Y-%m-%d} {column} was {was:.10g}, is {now:.10g}"
    only_adjusted = not len(missing) and not any(
        m.any() for c, m in moved.items() if c != "adj_close"
    )
    kind: Literal["readjusted", "corrected"] = "readjusted" if only_adjusted else "corrected"
    return Change(kind, int(touched.sum()) + len(missing), len(days), example)
