"""VNDirect's chart feed: one answer for the whole range, every price adjusted, no values.

What it gives is good for checking another source, not for training: raw prices, which price limits
and the tick size are about, cannot be had here.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import Any

from vnquant.market.collect.answers import History, frame, number, refuse_two
from vnquant.market.collect.client import Client
from vnquant.market.collect.faults import Unusable
from vnquant.market.universe import VN102

PRICES = "/dchart/history"
VIETNAM = dt.timezone(dt.timedelta(hours=7))
FIELDS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}


class VNDirectChart:
    """The service behind dchart-api.vndirect.com.vn.

    Args:
        client: speaks to it; its replies are kept under the symbol's name.
    """

    name = "vndirect-chart"
    base_url = "https://dchart-api.vndirect.com.vn"
    referer = "https://dchart.vndirect.com.vn/"

    def __init__(self, client: Client) -> None:
        self._client = client

    def listing(self) -> Mapping[str, str]:
        """Raises Unusable: this service has no list of shares."""
        raise Unusable(
            "has no list of shares", where=self.name, fix="give --symbols, or --universe vn102"
        )

    def history(self, symbol: str, *, since: dt.date | None, until: dt.date) -> History:
        """See `answers.Service.history`; open to close and adj_close are all adjusted."""
        if symbol not in VN102:
            raise Unusable(
                "its exchange is not known, and a chart does not tell it",
                where=symbol,
                fix="use the source vndirect",
            )
        begin = _seconds(since) if since else 0
        end = _seconds(until + dt.timedelta(days=1))
        query = f"symbol={symbol}&resolution=D&from={begin}&to={end}"
        columns = _columns(self._client.get(PRICES, query, group=symbol), symbol)
        bars: dict[dt.date, dict[str, Any]] = {}
        dropped: Counter[str] = Counter()
        for row in zip(*columns.values(), strict=True):
            bar = _bar(dict(zip(columns, row, strict=True)))
            if isinstance(bar, str):
                dropped[bar] += 1
                continue
            date = bar["date"]
            if date > until or (since is not None and date < since):
                dropped["outside the dates"] += 1
            elif date in bars:
                refuse_two(date, bars[date], bar, symbol)
                dropped["the same row again"] += 1
            else:
                bars[date] = bar
        named = {"symbol": symbol, "exchange": VN102[symbol]}
        return History(frame([b | named for b in bars.values()]), +dropped)


def _seconds(date: dt.date) -> int:
    """The epoch second at which a date begins in UTC, as the feed dates its bars."""
    return int(dt.datetime(date.year, date.month, date.day, tzinfo=dt.UTC).timestamp())


def _columns(answer: Any, symbol: str) -> dict[str, list[Any]]:
    """The arrays of an answer; empty ones for ``ok`` without bars and for ``no_data``."""
    names = ("t", *FIELDS.values())
    said = answer.get("s") if isinstance(answer, dict) else None
    if said == "no_data":
        return {name: [] for name in names}
    columns = {name: answer.get(name) for name in names} if said == "ok" else {}
    if not columns or not all(isinstance(c, list) for c in columns.values()):
        raise Unusable(
            f"its answer says {said!r} and is no chart", where=symbol, fix="try again later"
        )
    if len({len(c) for c in columns.values()}) > 1:
        raise Unusable(
            "its arrays have different lengths", where=symbol, fix="run the same command again"
        )
    return columns


def _bar(row: Mapping[str, Any]) -> dict[str, Any] | str:
    """One bar, or why it is none."""
    second = number(row["t"])
    found = {ours: number(row[theirs]) for ours, theirs in FIELDS.items()}
    # Bars are dated at midnight, of London or of Hanoi: seven hours later it is the same day.
    date = None
    if second is not None and 0 < second < 1e11:
        date = dt.datetime.fromtimestamp(second, VIETNAM).date()
    if date is None or date.year < 2000:
        return "impossible date"
    if not found["close"]:
        return "close is 0 (provisional)"
    if None in found.values():
        return "a price or the volume is missing"
    return {"date": date, **found, "adj_close": found["close"], "value": None, "change_text": None}
