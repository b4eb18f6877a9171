"""One page of CafeF's PriceHistory: its rows, read into bars or named as useless."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vnquant.market.collect.answers import day, number, refuse_two, value_in_vnd
from vnquant.market.collect.faults import Unusable

FIELDS = {
    "open": "GiaMoCua",
    "high": "GiaCaoNhat",
    "low": "GiaThapNhat",
    "close": "GiaDongCua",
    "adj_close": "GiaDieuChinh",
    "volume": "KhoiLuongKhopLenh",
}


@dataclass
class Page:
    """What one answer holds.

    Attributes:
        bars: by date, in the schema's units, without symbol and exchange.
        rows: as received, useless and repeated ones too.
        total: TotalCount: of all pages, of this window or of the whole history; None: not said.
        useless: rows that are no bars, by reason.
        repeated: rows that say the same as another one of this page.
    """

    bars: dict[dt.date, dict[str, Any]]
    rows: int
    total: int | None
    useless: Counter[str]
    repeated: int


def clash(
    known: Mapping[dt.date, Mapping[str, Any]],
    found: Mapping[dt.date, Mapping[str, Any]],
    symbol: str,
) -> None:
    """Refuse two different bars for one day.

    Raises:
        Unusable: naming the first such day.
    """
    for date in sorted(known.keys() & found.keys()):
        refuse_two(date, known[date], found[date], symbol)


def parse(answer: Any, symbol: str, settled: dt.date) -> Page:
    """One page's rows to the last settled session; keys that are not known are ignored.

    Raises:
        Unusable: not the structure of a page, or rows of another symbol.
    """
    outer = answer.get("Data") if isinstance(answer, dict) else None
    if isinstance(answer, dict) and "Data" in answer and outer is None:
        outer = {"TotalCount": 0, "Data": []}  # how an unknown symbol may be answered
    rows = outer.get("Data") if isinstance(outer, dict) else None
    if isinstance(outer, dict) and "Data" in outer and rows is None:
        rows = []
    if not isinstance(outer, dict) or not isinstance(rows, list):
        raise Unusable(
            "its answer has no Data.Data", where=symbol, fix="the service may have changed"
        )
    bars: dict[dt.date, dict[str, Any]] = {}
    useless: Counter[str] = Counter()
    repeated = 0
    for row in rows:
        bar = _bar(row, symbol)
        if isinstance(bar, str):
            useless[bar] += 1
        elif bar["date"] > settled:
            useless["its session is not over"] += 1
        elif bar["date"] in bars:
            clash(bars, {bar["date"]: bar}, symbol)
            repeated += 1
        else:
            bars[bar["date"]] = bar
    total = number(outer.get("TotalCount"))
    return Page(bars, len(rows), None if total is None else int(total), useless, repeated)


def _bar(row: Any, symbol: str) -> dict[str, Any] | str:
    """One bar in the schema's units, or why it is none."""
    if not isinstance(row, dict):
        return "no row at all"
    if str(row.get("Symbol") or symbol).strip().upper() != symbol:
        raise Unusable(
            f"asked for {symbol}, it gives {row['Symbol']}", where=symbol, fix="check --base-url"
        )
    date = day(row.get("Ngay"), "%d/%m/%Y")
    if date is None:
        return "impossible date"
    found = {ours: number(row.get(theirs)) for ours, theirs in FIELDS.items()}
    if not found["close"]:
        return "close is 0 (provisional)"
    if None in found.values():
        return "a price or the volume is missing"
    value = number(row.get("GiaTriKhopLenh"))
    change = row.get("ThayDoi")
    return {
        "date": date,
        **found,
        "value": value_in_vnd(value, found["volume"] or 0.0, found["close"]),
        "change_text": change if isinstance(change, str) else None,
    }
