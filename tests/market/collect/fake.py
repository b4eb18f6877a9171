"""A loopback server that plays CafeF and VNDirect with every quirk that has been recorded.

Real sockets, invented bars. ``python tests/market/collect/fake.py PORT`` serves the simulated
market of the package, for trying `vnquant prices` without a network.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pandas as pd

CAFEF = "/du-lieu/ajax/pagenew/datahistory/pricehistory.ashx"
CAFEF_LIST = "/du-lieu/ajax/pagenew/databusiness/congtyniemyet.ashx"
FINFO = "/v4/stock_prices/"
FINFO_LIST = "/v4/stocks"
DCHART = "/dchart/history"
PAGE = "<!DOCTYPE html><html><body>Blocked</body></html>"
CENTRES = {"HOSE": 1, "HNX": 2, "UPCOM": 9}
RowWriter = Callable[[dict[str, Any], float], dict[str, Any]]


@dataclass
class Quirks:
    """How the services behave; the defaults are CafeF of August 2025 and a well-meaning finfo.

    Attributes:
        page_cap: CafeF's most rows a page, or finfo's.
        window: sessions that one CafeF question reaches back at most.
        whole_count: TotalCount is of the whole history even when only a window is served.
        no_count: no TotalCount at all.
        date_form: how CafeF reads StartDate and EndDate.
        misread: what a date in another form does: ``empty`` or ``unfiltered`` answers.
        value_unit: of GiaTriKhopLenh, VND.
        price_unit: of finfo's prices, thousand VND.
        impossible_row: a row dated 01/01/0001 ends every CafeF history.
        twice: every CafeF page repeats its last row.
        overlap: every CafeF page but the first repeats a row of the one before.
        provisional: an unfinished row of that date comes first.
        null_data: unknown symbols give ``Data: null``.
        midnight: seconds after midnight UTC at which the chart dates its bars.
        no_bars: what the chart says where it has none: ``ok`` or ``no_data``.
        content_type: of JSON answers.
        gzipped: answers are compressed.
    """

    page_cap: int | None = None
    window: int | None = None
    whole_count: bool = False
    no_count: bool = False
    date_form: str = "%m/%d/%Y"
    misread: str = "empty"
    value_unit: float = 1.0
    price_unit: float = 1.0
    impossible_row: bool = False
    twice: bool = False
    overlap: bool = False
    provisional: dt.date | None = None
    null_data: bool = False
    midnight: int = 0
    no_bars: str = "ok"
    content_type: str = "text/html; charset=utf-8"
    gzipped: bool = False


@dataclass
class Fake:
    """Both services at one address.

    Attributes:
        bars: symbol to bars in the columns of the schema, oldest first.
        quirks: may be changed between questions.
        faults: symbol to faults, each spent on one question: ``403``, ``502``, ``404``, ``429:1``
            (with Retry-After), ``429``, ``503:0``, ``truncated``, ``cut`` (fewer bytes than
            promised), ``html``, ``hang``, ``drip``, ``reset``, ``lost-query``, ``moved``,
            ``circle``, ``empty``, ``nan``. The key ``*`` is for every symbol.
        asked: the path and query of every question, in order.
        asked_at: when each of them came, in seconds of the monotonic clock.
        seen_headers: of the last question.
    """

    bars: dict[str, pd.DataFrame]
    quirks: Quirks = field(default_factory=Quirks)
    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    asked: list[str] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    seen_headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    leaving: threading.Event = field(default_factory=threading.Event)
    _written: dict[Any, tuple[pd.DataFrame, list[dict[str, Any]]]] = field(default_factory=dict)

    def rows(self, symbol: str, write: RowWriter, unit: float) -> list[dict[str, Any]]:
        """A symbol's bars as a service writes them, newest first; written once."""
        bars = self.bars[symbol]
        known = self._written.get((symbol, write, unit))
        if known is None or known[0] is not bars:
            rows = [write(b, unit) for b in bars.to_dict(orient="records")][::-1]
            self._written[symbol, write, unit] = known = (bars, rows)
        return known[1].copy()

    def count(self, symbol: str) -> int:
        """How many questions were about a symbol."""
        asked = (f"Symbol={symbol}&", f"symbol={symbol}&", f"code:{symbol}~")
        return sum(any(words in a for words in asked) for a in self.asked)

    def fault(self, symbol: str) -> str | None:
        for key in (symbol, "*"):
            if self.faults[key]:
                return self.faults[key].pop(0)
        return None

    def rebase(self, symbol: str, factor: float, *, decimals: int = 2) -> None:
        """A bonus issue: every adj_close is rewritten."""
        old = self.bars[symbol]
        self.bars[symbol] = old.assign(adj_close=(old["adj_close"] * factor).round(decimals))


def cafef_row(bar: dict[str, Any], unit: float) -> dict[str, Any]:
    value = bar["value"] if unit == 1.0 else round(bar["value"] / unit, 2)
    return {
        "Symbol": bar["symbol"],
        "Ngay": f"{bar['date']:%d/%m/%Y}",
        "GiaDieuChinh": bar["adj_close"],
        "GiaDongCua": bar["close"],
        "ThayDoi": bar["change_text"],
        "KhoiLuongKhopLenh": int(bar["volume"]),
        "GiaTriKhopLenh": value,
        "KLThoaThuan": 0,
        "GtThoaThuan": 0,
        "GiaMoCua": bar["open"],
        "GiaCaoNhat": bar["high"],
        "GiaThapNhat": bar["low"],
    }


def finfo_row(bar: dict[str, Any], unit: float) -> dict[str, Any]:
    def price(name: str) -> float:
        return float(round(bar[name] * unit, 4))

    return {
        "code": bar["symbol"],
        "date": f"{bar['date']:%Y-%m-%d}",
        "time": "15:11:05",
        "floor": bar["exchange"],
        "type": "STOCK",
        "floorPrice": 0.0,
        "open": price("open"),
        "high": price("high"),
        "low": price("low"),
        "close": price("close"),
        "adClose": price("adj_close"),
        "nmVolume": float(bar["volume"]),
        "nmValue": bar["value"],
        "ptVolume": 0.0,
        "change": round(0.2 * unit, 4),
        "pctChange": 0.995,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer would wait 40 ms for an acknowledgement
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        fake = self.server.fake
        parts = urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        fake.asked_at.append(time.monotonic())
        fake.asked.append(unquote(self.path))
        fake.seen_headers = dict(self.headers.items())
        code = query.get("q", "").partition("~")[0].partition(":")[2]
        symbol = query.get("Symbol") or query.get("symbol") or code
        path = parts.path.removeprefix("/moved").lower()
        if (fault := fake.fault(symbol)) is not None and self._fail(fault, parts.query):
            return
        if path == CAFEF:
            self._json(cafef(fake, query))
        elif path == FINFO:
            self._json(finfo(fake, query))
        elif path == DCHART:
            self._json(dchart(fake, query))
        elif path == CAFEF_LIST:
            rows = [
                {"Symbol": s, "TradeCenterId": CENTRES[f["exchange"].iloc[-1]]}
                for s, f in fake.bars.items()
            ]
            rows += [{"Symbol": "OTC", "TradeCenterId": 8}, {"Symbol": "CFPT2501"}]
            self._json({"Data": rows, "Message": None, "Success": True})
        elif path == FINFO_LIST:
            rows = [
                {"code": s, "floor": f["exchange"].iloc[-1], "type": "STOCK"}
                for s, f in fake.bars.items()
            ]
            self._json({"data": rows, "currentPage": 1, "totalPages": 1})
        else:
            self._send(404, b"{}")

    def _fail(self, fault: str, query: str) -> bool:
        """Play a fault; False if the answer comes after all."""
        kind, _, seconds = fault.partition(":")
        if kind in ("429", "503"):
            headers = {"Retry-After": seconds} if seconds else {}
            self._send(int(kind), b"slow down", headers=headers)
        elif kind.isdigit():
            self._send(int(kind), PAGE.encode(), "text/html")
        elif kind == "html":
            self._send(200, PAGE.encode(), "text/html")
        elif kind == "truncated":
            self._send(200, b'{"Data": {"TotalCount": 2, "Data": [{"Symbol": "A')
        elif kind == "nan":
            self._send(200, b'{"Data": {"TotalCount": NaN, "Data": []}}')
        elif kind == "empty":
            self._send(200, b"")
        elif kind == "cut":
            self._send(200, b'{"Data": ', promised=5000)
        elif kind == "hang":
            self.server.fake.leaving.wait(60)
            self.close_connection = True
        elif kind == "drip":
            self._drip()
        elif kind == "reset":
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
        elif kind == "lost-query":
            self._send(301, b"", headers={"Location": self.server.fake.url + "/elsewhere"})
        elif kind == "moved":
            path = urlsplit(self.path).path
            self._send(301, b"", headers={"Location": f"/moved{path}?{query}"})
        elif kind == "circle":
            self._send(302, b"", headers={"Location": self.path})
        else:
            raise AssertionError(f"no such fault: {fault}")
        return True

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.fake.leaving.wait(0.02):
                self.wfile.write(b" ")
        self.close_connection = True

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), self.server.fake.quirks.content_type)

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json",
        *,
        headers: dict[str, str] | None = None,
        promised: int | None = None,
    ) -> None:
        if self.server.fake.quirks.gzipped:
            body, headers = gzip.compress(body), {**(headers or {}), "Content-Encoding": "gzip"}
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if promised is not None:
            self.close_connection = True


def _read(text: str, form: str) -> dt.date | None:
    try:
        return dt.datetime.strptime(text, form).date()
    except ValueError:
        return None


def cafef(fake: Fake, query: dict[str, str]) -> dict[str, Any]:
    """One page, newest first."""
    q = fake.quirks
    bars = fake.bars.get(query["Symbol"])
    if bars is None:
        if q.null_data:
            return {"Data": None, "Message": None, "Success": True}
        return {"Data": {"TotalCount": 0, "Data": []}, "Message": None, "Success": True}
    rows = fake.rows(query["Symbol"], cafef_row, q.value_unit)
    days = [d.date() for d in bars["date"]][::-1]
    if q.impossible_row:
        rows.append(rows[-1] | {"Ngay": "01/01/0001"})
        days.append(dt.date(2000, 1, 1))
    whole = len(rows)
    if q.provisional is not None:
        unfinished = {"GiaDongCua": 0.0, "ThayDoi": "-20.5(-100.00 %)"}
        rows.insert(0, rows[0] | unfinished | {"Ngay": f"{q.provisional:%d/%m/%Y}"})
        days.insert(0, q.provisional)
    begin, end = (query.get(k, "") for k in ("StartDate", "EndDate"))
    first, last = _read(begin, q.date_form), _read(end, q.date_form)
    if (begin and first is None) or (end and last is None):
        if q.misread == "empty":
            return {"Data": {"TotalCount": 0, "Data": []}}
        first = last = None
    kept = [
        r
        for r, d in zip(rows, days, strict=True)
        if (first is None or d >= first) and (last is None or d <= last)
    ]
    kept = kept[: q.window]
    size = min(int(query["PageSize"]), q.page_cap or 10**9)
    at = (int(query["PageIndex"]) - 1) * size
    page = kept[max(at - int(q.overlap), 0) : at + size] if at < len(kept) else []
    if q.twice and page:
        page = [*page, page[-1]]
    data: dict[str, Any] = {"Data": page, "Index": None, "TradingReport": []}
    if not q.no_count:
        data["TotalCount"] = whole if q.whole_count else len(kept)
    return {"Data": data, "Message": None, "Success": True}


def finfo(fake: Fake, query: dict[str, str]) -> dict[str, Any]:
    """One page, newest first."""
    q = fake.quirks
    code, first, last = "", dt.date.min, dt.date.max
    for condition in query["q"].split("~"):
        name, _, rest = condition.partition(":")
        if name == "code":
            code = rest
        elif rest.startswith("gte:"):
            first = dt.date.fromisoformat(rest[4:])
        elif rest.startswith("lte:"):
            last = dt.date.fromisoformat(rest[4:])
    rows = fake.rows(code, finfo_row, q.price_unit) if code in fake.bars else []
    rows = [r for r in rows if str(first) <= r["date"] <= str(last)]
    size = min(int(query["size"]), q.page_cap or 10**9)
    at = (int(query["page"]) - 1) * size
    return {
        "currentPage": int(query["page"]),
        "size": size,
        "totalElements": len(rows),
        "totalPages": -(-len(rows) // size),
        "data": rows[at : at + size],
    }


def dchart(fake: Fake, query: dict[str, str]) -> dict[str, Any]:
    """All bars of a range, oldest first, every price adjusted; empty arrays are ``ok`` too."""
    bars = fake.bars.get(query["symbol"])
    if bars is None:
        return {"s": fake.quirks.no_bars, **{name: [] for name in "tohlcv"}}
    seconds = bars["date"].astype("int64") + fake.quirks.midnight
    keep = bars[(seconds >= int(query["from"])) & (seconds <= int(query["to"]))]
    factor = keep["adj_close"] / keep["close"]
    answer: dict[str, Any] = {"t": seconds[keep.index].tolist(), "s": "ok"}
    for name in ("open", "high", "low", "close"):
        answer[name[0]] = (keep[name] * factor).round(2).tolist()
    return answer | {"v": keep["volume"].astype(int).tolist()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, fake: Fake, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.fake = fake

    def handle_error(self, *_: object) -> None:
        return  # clients that hang up are part of the play


@contextlib.contextmanager
def serving(fake: Fake, port: int = 0) -> Iterator[Fake]:
    """Serve until the block ends; ``fake.url`` is the address."""
    server = _Server(fake, port)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.leaving.set()
        server.shutdown()
        server.server_close()
        thread.join()


def simulated(symbols: list[str] | None = None, start: dt.date | None = None) -> Fake:
    """The package's simulated market behind both services."""
    from vnquant.market.synthetic import SyntheticMarket

    raw = SyntheticMarket(0).load(symbols, start=start)
    return Fake({str(s): f.reset_index(drop=True) for s, f in raw.groupby("symbol")})


if __name__ == "__main__":
    with serving(simulated(), int(sys.argv[1]) if len(sys.argv) > 1 else 0) as played:
        print(played.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
