"""VNDirect's statistics API (finfo): raw bars with an adjusted close and the day's exchange."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from vnquant.market.collect.answers import History, day, frame, number, price_scale, refuse_two
from vnquant.market.collect.client import Client
from vnquant.market.collect.faults import Unusable

PRICES = "/v4/stock_prices/"
LIST = "/v4/stocks"
SIZE = 10_000
"""Rows to ask for at a time: more than any history has, as other clients do."""
MOST_PAGES = 1000
EXCHANGES = {"HOSE": "HOSE", "HSX": "HOSE", "HNX": "HNX", "UPCOM": "UPCOM"}
FIELDS = {
    "open": "open",
    "high": "high",
    "low": "low",
    "close": "close",
    "adj_close": "adClose",
    "volume": "nmVolume",
}
IN_PRICE_UNITS = ("open", "high", "low", "close", "adj_close")


class VNDirect:
    """The service behind finfo-api.vndirect.com.vn.

    Args:
        client: speaks to it; its replies are kept under the symbol's name.
    """

    name = "vndirect"
    base_url = "https://api-finfo.vndirect.com.vn"
    referer = "https://dstock.vndirect.com.vn/"

    def __init__(self, client: Client) -> None:
        self._client = client
        self._scale: float | None = None

    def listing(self) -> Mapping[str, str]:
        """Every listed share with its exchange of today."""
        query = "q=type:STOCK~floor:HOSE,HNX,UPCOM&size=9999"
        answer = self._client.get(LIST, query)
        rows = answer.get("data") if isinstance(answer, dict) else None
        found = {
            str(r["code"]).strip().upper(): EXCHANGES[str(r.get("floor")).upper()]
            for r in (rows if isinstance(rows, list) else [])
            if isinstance(r, dict) and r.get("code") and str(r.get("floor")).upper() in EXCHANGES
        }
        if not found:
            raise Unusable("its list of shares is empty", where=LIST, fix="give --symbols")
        return {s: e for s, e in sorted(found.items()) if len(s) == 3}

    def history(self, symbol: str, *, since: dt.date | None, until: dt.date) -> History:
        """See `answers.Service.history`."""
        rows: dict[dt.date, dict[str, Any]] = {}
        dropped: Counter[str] = Counter()
        received, index, pages, total = 0, 1, 1, 0
        while index <= pages:
            page, before = self._page(symbol, since, until, index), set(rows)
            for row in page["data"]:
                received += self._take(row, symbol, until, rows, before, dropped)
            pages = int(number(page.get("totalPages")) or 1)
            counted = number(page.get("totalElements"))
            total = received if counted is None else int(counted)
            if pages > MOST_PAGES or (index < pages and not page["data"]):
                raise Unusable(
                    f"page {index} of {pages:,} is of no use",
                    where=symbol,
                    fix="run the same command again",
                )
            index += 1
        if received < total:
            raise Unusable(
                f"counts {total:,} rows, but only {received:,} came",
                where=symbol,
                fix="run the same command again",
            )
        if pages > 1:
            for row in self._page(symbol, since, until, 1, fresh=True)["data"]:
                self._take(row, symbol, until, rows, set(rows), Counter())
        kept = {d: r for d, r in rows.items() if since is None or d >= since}
        dropped["outside the dates"] += len(rows) - len(kept)
        bars = self._bars(symbol, kept, dropped)
        return History(frame(bars), +dropped)

    def _page(
        self,
        symbol: str,
        since: dt.date | None,
        until: dt.date,
        index: int,
        *,
        fresh: bool = False,
    ) -> dict[str, Any]:
        # Colons, tildes and commas must not be encoded, so the question is written by hand.
        conditions = [f"code:{symbol}"]
        conditions += [f"date:gte:{since}"] if since else []
        conditions += [f"date:lte:{until}"]
        query = f"sort=date&size={SIZE}&page={index}&q={'~'.join(conditions)}"
        answer = self._client.get(PRICES, query, group=symbol, fresh=fresh)
        if not isinstance(answer, dict) or not isinstance(answer.get("data") or [], list):
            raise Unusable(
                "its answer has no data", where=symbol, fix="the service may have changed"
            )
        return answer | {"data": answer.get("data") or []}

    def _take(
        self,
        row: Any,
        symbol: str,
        until: dt.date,
        rows: dict[dt.date, dict[str, Any]],
        before: Collection[dt.date],
        dropped: Counter[str],
    ) -> int:
        """Put one row among the others; how many rows it counts as: 0 if a page before had it."""
        if not isinstance(row, dict):
            dropped["no row at all"] += 1
            return 1
        if str(row.get("code")).strip().upper() != symbol:
            raise Unusable(
                f"asked for {symbol}, it gives {row.get('code')}",
                where=symbol,
                fix="check --base-url",
            )
        date = day(row.get("date"), "%Y-%m-%d")
        if date is None:
            dropped["impossible date"] += 1
        elif date > until:
            dropped["outside the dates"] += 1
        elif date not in rows:
            rows[date] = row
        else:
            refuse_two(date, rows[date], row, symbol)
            dropped["the same row again"] += 1
            return int(date not in before)
        return 1

    def _bars(
        self, symbol: str, rows: Mapping[dt.date, Mapping[str, Any]], dropped: Counter[str]
    ) -> list[dict[str, Any]]:
        scale = self._unit(symbol, rows)
        bars = []
        for date, row in rows.items():
            found = {ours: number(row.get(theirs)) for ours, theirs in FIELDS.items()}
            if not found["close"]:
                dropped["close is 0 (provisional)"] += 1
                continue
            if None in found.values():
                dropped["a price or the volume is missing"] += 1
                continue
            for name in IN_PRICE_UNITS:
                found[name] = (found[name] or 0.0) / scale
            exchange = EXCHANGES.get(str(row.get("floor")).upper())
            if exchange is None:
                raise Unusable(
                    f"{date} is of the exchange {row.get('floor')!r}",
                    where=symbol,
                    fix="only shares of HOSE, HNX and UPCOM can be collected",
                )
            bar: dict[str, Any] = {"symbol": symbol, "exchange": exchange, "date": date}
            change = _change(row, scale)
            bars.append(bar | found | {"value": number(row.get("nmValue")), "change_text": change})
        return bars

    def _unit(self, symbol: str, rows: Mapping[dt.date, Mapping[str, Any]]) -> float:
        """What divides this service's prices into thousand VND.

        Prices of about 1,000 VND look alike in both units, so value / volume decides; where
        nothing was traded, what the symbols before have shown.
        """
        numbers = [
            [number(row.get(name)) or 0.0 for name in ("close", "nmVolume", "nmValue")]
            for row in rows.values()
        ]
        found = price_scale([(c, v, w) for c, v, w in numbers])
        if found is not None:
            self._scale = found
            return found
        if any(v > 0 and w > 0 for _, v, w in numbers):
            raise Unusable(
                "value / volume does not tell whether prices are in VND or thousands",
                where=symbol,
                fix="the service may have changed its units; please report it",
            )
        return self._scale or 1.0


def _change(row: Mapping[str, Any], scale: float) -> str | None:
    """The official change as CafeF writes it: ``-0.5(-1.39 %)``; None if it is not given."""
    change, percent = number(row.get("change")), number(row.get("pctChange"))
    if change is None:
        return None
    text = f"{round(change / scale, 4):.10g}"
    return text if percent is None else f"{text}({percent:.2f} %)"
