"""Reading numbers, dates and units out of answers, and the frame that every source ends with."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd

from vnquant.market.collect.faults import Unusable
from vnquant.market.schema import COLUMNS

BILLION = 1e9
TOLERANCE = 5.0
"""An average price may miss the close by this factor and still tell units of 1000 apart."""


@dataclass(frozen=True)
class History:
    """One symbol's bars as a service gave them.

    Attributes:
        bars: columns of `vnquant.market.schema.COLUMNS`, sorted by date; may be empty.
        dropped: why rows were left out, and how many.
    """

    bars: pd.DataFrame
    dropped: Counter[str] = field(default_factory=Counter)


class Service(Protocol):
    """A web service that knows daily bars."""

    name: str

    def listing(self) -> Mapping[str, str]:
        """Every share it has, with its exchange."""
        ...

    def history(self, symbol: str, *, since: dt.date | None, until: dt.date) -> History:
        """Bars of one symbol between two dates (inclusive; since None: from the first).

        Raises:
            Unreachable, Refused, Faulty, Throttled: no answer that could be read.
            Unusable: an answer that cannot be trusted.
        """
        ...


def number(value: Any) -> float | None:
    """A finite number, given as such or as text with or without thousands commas; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value.replace(",", ""))
        except ValueError:
            return None
    if not isinstance(value, (int, float)):
        return None
    try:
        out = float(value)
    except OverflowError:
        return None
    return out if math.isfinite(out) else None


def day(text: Any, form: str) -> dt.date | None:
    """A date written in ``form``; None for anything else and for years before the market began."""
    if not isinstance(text, str):
        return None
    try:
        found = dt.datetime.strptime(text.strip(), form).date()
    except ValueError:
        return None
    return found if found.year >= 2000 else None


def value_in_vnd(value: float | None, volume: float, close: float) -> float | None:
    """A traded value in VND, whether it was given in VND or in billions of VND.

    Decided by value / volume against the price, never by size alone; one that fits neither unit
    stays as the source has it.

    Args:
        value: as published.
        volume: shares.
        close: thousand VND.
    """
    if value is None:
        return None
    if value > 0 and volume > 0 and close > 0:
        average = value / volume
        if _near(average * BILLION, close * 1000.0):
            # Two decimals of a billion: whole VND, so that no binary dust is stored.
            return round(value * BILLION)
    return value


def price_scale(rows: Sequence[tuple[float, float, float]]) -> float | None:
    """What to divide prices by to get thousand VND: 1 or 1000; None if the rows do not tell.

    Args:
        rows: close as published, volume (shares) and value (VND) of each bar.
    """
    votes = Counter[float]()
    for close, volume, value in rows:
        if min(close, volume, value) <= 0:
            continue
        for scale in (1.0, 1000.0):
            if _near(value / volume, close / scale * 1000.0):
                votes[scale] += 1
    if not votes:
        return None
    (best, count), *rest = votes.most_common()
    # One odd bar must not overrule the others, nor may a tie be guessed.
    return best if not rest or count > 9 * rest[0][1] else None


def _near(a: float, b: float) -> bool:
    return b / TOLERANCE < a < b * TOLERANCE


def refuse_two(date: dt.date, one: object, other: object, symbol: str) -> None:
    """Let a day come twice only if it says the same.

    Raises:
        Unusable: it does not.
    """
    if one != other:
        raise Unusable(
            f"{date} came twice with different numbers: its history changed while it was read",
            where=symbol,
            fix="run the same command again",
        )


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Bars in the columns and types of the schema, sorted by date."""
    out = pd.DataFrame(list(rows), columns=list(COLUMNS))
    numbers = dict.fromkeys(COLUMNS[3:-1], "float64")
    texts = {"symbol": "str", "exchange": "str", "change_text": "str"}
    out["date"] = pd.to_datetime(out["date"])
    return out.astype(numbers | texts | {"date": "datetime64[s]"}).sort_values(
        "date", ignore_index=True
    )
