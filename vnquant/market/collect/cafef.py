"""CafeF's PriceHistory pages: raw bars with an adjusted close, newest first, page by page.

Two servers have been seen behind the same address. One gives a whole history in one answer; the
other at most 20 rows a page and about three months for one pair of dates. Which one answers is
read off its answers, and so is the order in which it wants day and month.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from vnquant.errors import VnquantError
from vnquant.market.collect.answers import History, frame
from vnquant.market.collect.cafef_page import Page, clash, parse
from vnquant.market.collect.client import Client
from vnquant.market.collect.faults import Unusable
from vnquant.market.universe import VN102

PRICES = "/du-lieu/Ajax/PageNew/DataHistory/PriceHistory.ashx"
LIST = "/du-lieu/ajax/pagenew/databusiness/congtyniemyet.ashx"
CENTRES = {1: "HOSE", 2: "HNX", 9: "UPCOM"}
WHOLE = 10_000
"""Rows to ask for: more than any history has."""
FEWEST = 20
LIST_ATTEMPTS = 3
DATE_FORMS = ("%m/%d/%Y", "%d/%m/%Y", "%Y-%m-%d", "%Y/%m/%d")
WINDOW = dt.timedelta(days=84)
"""Asked for at a time once the server is known to cut at three months."""
UNCUT = 130
"""Rows without a date asked for; one that gives more does not cut. A cutting one gives 65."""
EMPTY_WINDOWS = 12
"""So many windows without a bar, almost three years, and the history is taken to begin there."""
OPENING = dt.date(2000, 7, 28)
"""The first session of all."""


class _Found(NamedTuple):
    """All pages of one question.

    Attributes:
        received: different rows; that many of ``total`` are here for sure.
        repeated: further rows, which some servers count in ``total`` and others do not.
        total: as the server counts; None: not said.
    """

    bars: dict[dt.date, dict[str, Any]]
    received: int
    repeated: int
    total: int | None


class CafeF:
    """The service behind cafef.vn.

    Args:
        client: speaks to it; its replies are kept under the symbol's name.
        settled: the last session that is over; rows after it are provisional.
    """

    name = "cafef"
    base_url = "https://cafef.vn"
    referer = "https://cafef.vn/"

    def __init__(self, client: Client, settled: dt.date) -> None:
        self._client = client
        self._settled = settled
        self._listed: dict[str, str] | None = None
        self._list_failures: list[VnquantError] = []
        # What the server does, as far as its answers have shown.
        self._most_rows: int | None = None
        self._cuts: bool | None = None
        self._form: str | None = None

    def listing(self) -> Mapping[str, str]:
        """Every listed share with its exchange of today."""
        if self._listed is None:
            query = urlencode({"centerid": 0, "skip": 0, "take": WHOLE, "major": 0})
            answer = self._client.get(LIST, query)
            rows = answer.get("Data") if isinstance(answer, dict) else None
            found = {
                str(r["Symbol"]).strip().upper(): CENTRES[r["TradeCenterId"]]
                for r in (rows if isinstance(rows, list) else [])
                if isinstance(r, dict) and r.get("Symbol") and r.get("TradeCenterId") in CENTRES
            }
            if not found:
                raise Unusable("its list of shares is empty", where=LIST, fix="give --symbols")
            # ETFs, warrants and bonds have longer names.
            self._listed = {s: e for s, e in sorted(found.items()) if len(s) == 3}
        return self._listed

    def _exchange(self, symbol: str) -> str:
        if self._listed is None and symbol in VN102:
            return VN102[symbol]
        if len(self._list_failures) >= LIST_ATTEMPTS:
            # Not a sign that prices cannot be had: those whose exchange is known still arrive.
            raise Unusable(
                f"its exchange is not known, for the list of shares failed: "
                f"{self._list_failures[-1].what}",
                where=symbol,
                fix="run the same command again later",
            )
        try:
            known = self.listing()
        except VnquantError as error:
            self._list_failures.append(error)
            raise
        if symbol not in known:
            raise Unusable("is not on CafeF's list of shares", where=symbol, fix="check the symbol")
        return known[symbol]

    def history(self, symbol: str, *, since: dt.date | None, until: dt.date) -> History:
        """See `answers.Service.history`. Bars after ``until`` are not settled or not wanted."""
        exchange = self._exchange(symbol)
        answers = self._client.answers
        dropped: Counter[str] = Counter()
        newest = self._pages(symbol, None, None, since, dropped)
        bars = dict(newest.bars)
        if bars and self._more_before(newest, since):
            self._earlier(symbol, newest, bars, since, dropped)
        if self._client.answers - answers > 1:
            self._unchanged(symbol, bars)
        kept = {d: b for d, b in bars.items() if d <= until and (since is None or d >= since)}
        dropped["outside the dates"] += len(bars) - len(kept)
        rows = [b | {"symbol": symbol, "exchange": exchange} for b in kept.values()]
        return History(frame(rows), +dropped)

    def _more_before(self, newest: _Found, since: dt.date | None) -> bool:
        """Whether there may be bars before those that the undated question brought."""
        if since is not None and min(newest.bars) <= since:
            return False
        if newest.total is not None and newest.received + newest.repeated < newest.total:
            return True
        if newest.received > UNCUT:
            self._cuts = False
        return self._cuts is not False

    def _earlier(
        self,
        symbol: str,
        newest: _Found,
        bars: dict[dt.date, dict[str, Any]],
        since: dt.date | None,
        dropped: Counter[str],
    ) -> None:
        """Walk back in windows until ``since``, or until nothing has come for long."""
        if self._form is None:
            self._form = self._date_form(symbol, sorted(bars))
        first = max(since or OPENING, OPENING)
        end, empty = min(bars) - dt.timedelta(days=1), 0
        received, repeated = newest.received, newest.repeated
        # A count beyond the first answer's rows is of the whole history: it says when to stop.
        total = newest.total or 0
        whole = total if total > received + repeated else math.inf
        while end >= first and empty < EMPTY_WINDOWS and received < whole:
            begin = max(end - WINDOW, first)
            window = self._pages(symbol, begin, end, begin, dropped)
            if any(d > end for d in window.bars):
                raise Unusable(
                    f"asked for bars to {end}, it gives later ones",
                    where=symbol,
                    fix="its dates are not understood here; please report it",
                )
            # A count that has not changed is of the whole history, and is checked at the end.
            if window.total != newest.total and not min(window.bars, default=end) <= begin:
                _all_came(symbol, window.received + window.repeated, window.total)
            bars.update(window.bars)
            received += window.received
            repeated += window.repeated
            empty = 0 if window.bars else empty + 1
            # A server that does not look at ``begin`` gives earlier bars, not to be asked again.
            end = min([begin, *window.bars]) - dt.timedelta(days=1)
        if since is None:
            _all_came(symbol, received + repeated, newest.total)

    def _date_form(self, symbol: str, days: list[dt.date]) -> str:
        """How this server writes dates in questions: the form that brings back a known day alone.

        A swapped day and month gives an empty or an unfiltered answer, or another day; only where
        the two are equal does it give the right one.
        """
        telling = [d for d in days if d.day != d.month]
        for form in DATE_FORMS if telling else ():
            page = self._page(symbol, telling[-1], telling[-1], 1, FEWEST, form)
            if set(page.bars) == {telling[-1]}:
                return form
        raise Unusable(
            "no way of writing dates brings back a known day, so earlier bars cannot be asked for",
            where=symbol,
            fix="try again later, or use another source",
        )

    def _pages(
        self,
        symbol: str,
        begin: dt.date | None,
        end: dt.date | None,
        since: dt.date | None,
        dropped: Counter[str],
    ) -> _Found:
        """All pages between two dates, newest first, no further back than ``since``."""
        bars: dict[dt.date, dict[str, Any]] = {}
        received, repeated, index = 0, 0, 1
        size = self._most_rows or (WHOLE if since is None else _enough(since))
        while True:
            page = self._page(symbol, begin, end, index, size, self._form)
            clash(bars, page.bars, symbol)
            fresh = len(page.bars.keys() - bars.keys())
            dropped.update(page.useless)
            again = page.repeated + len(page.bars) - fresh
            dropped["the same row again"] += again
            bars.update(page.bars)
            received += fresh + sum(page.useless.values())
            repeated += again
            over = page.total is not None and received >= page.total
            over |= since is not None and bool(bars) and min(bars) <= since
            over |= not fresh and not page.useless
            over |= index > 1 and page.rows < size
            if index > 1 and fresh:
                self._most_rows = size  # it gave more after a page of that size
            if over:
                return _Found(bars, received, repeated, page.total)
            # The server may have its own idea of a page; offsets must be counted in that.
            size = min(size, page.rows - page.repeated) if index == 1 else size
            index += 1

    def _page(
        self,
        symbol: str,
        begin: dt.date | None,
        end: dt.date | None,
        index: int,
        size: int,
        form: str | None,
        *,
        fresh: bool = False,
    ) -> Page:
        write = lambda d: "" if d is None or form is None else d.strftime(form)  # noqa: E731
        query = {"Symbol": symbol, "StartDate": write(begin), "EndDate": write(end)}
        query |= {"PageIndex": str(index), "PageSize": str(size)}
        answer = self._client.get(PRICES, urlencode(query), group=symbol, fresh=fresh)
        return parse(answer, symbol, self._settled)

    def _unchanged(self, symbol: str, bars: Mapping[dt.date, Mapping[str, Any]]) -> None:
        """A history re-based while its pages were read would be half old, half new."""
        size = self._most_rows or FEWEST
        page = self._page(symbol, None, None, 1, size, None, fresh=True)
        clash(bars, page.bars, symbol)


def _all_came(symbol: str, received: int, total: int | None) -> None:
    if total is not None and received < total:
        raise Unusable(
            f"counts {total:,} rows, but only {received:,} came",
            where=symbol,
            fix="run the same command again",
        )


def _enough(since: dt.date) -> int:
    """Rows that reach back to ``since`` for sure: weekdays, and some more."""
    days = (dt.datetime.now(dt.UTC).date() - since).days
    return max(FEWEST, min(WHOLE, days * 5 // 7 + 10))
