"""Bring a folder of prices up to date, one symbol after the other; whoever fails is listed."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pandas as pd

from vnquant.errors import DataError, PartialFailure, RetryableError, VnquantError
from vnquant.events import Events
from vnquant.market.collect.answers import History, Service
from vnquant.market.collect.cache import Replies
from vnquant.market.collect.changes import Change, find_change
from vnquant.market.collect.faults import Faulty, Refused, Throttled, Unreachable, Unusable
from vnquant.market.collect.store import PriceStore, Stored, origin

VIETNAM = dt.timezone(dt.timedelta(hours=7))
CLOSE = dt.time(15, 30)
"""Viet Nam time. Trading ends at 15:00; the services write the day's last figures after it."""
OVERLAP = 15
"""Stored sessions that an update asks for again, to see whether the source has rewritten them."""
GIVE_UP = 5
"""So many symbols in a row without a usable answer, and the others are not asked."""
NEVER_THERE = 2
"""The same, while the source has not answered at all, be it with a refusal."""
MOST_LOST = 0.02
"""Share of stored days that a new history may lack and still replace the stored one."""

Outcome = Literal["new", "updated", "unchanged", "current", "replaced", "failed"]


@dataclass
class SymbolResult:
    """What became of one symbol.

    Attributes:
        outcome: ``current``: complete already, nothing was asked; ``unchanged``: asked, no new
            bar; ``replaced``: fetched as a whole because the source has rewritten its history.
        bars: in its file now.
        added: bars that were not there before.
        dropped: rows of the source that are no bars, by reason.
        note: why it failed or was replaced.
        kept: the earlier file, relative to the folder, if it was replaced.
    """

    symbol: str
    outcome: Outcome
    bars: int = 0
    added: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    note: str = ""
    kept: str | None = None


@dataclass
class FetchReport:
    source: str
    through: str
    results: list[SymbolResult]
    stopped: str = ""
    """Why the symbols after the last failure were not asked; empty if all were."""

    @property
    def counts(self) -> Counter[str]:
        return Counter(r.outcome for r in self.results)

    @property
    def failed(self) -> list[SymbolResult]:
        return [r for r in self.results if r.outcome == "failed"]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"counts": dict(self.counts)}


def last_settled(now: dt.datetime | None = None) -> dt.date:
    """The last date whose bars are final: today only after the close, in Viet Nam."""
    now = (now or dt.datetime.now(dt.UTC)).astimezone(VIETNAM)
    return now.date() if now.time() >= CLOSE else now.date() - dt.timedelta(days=1)


class Fetch:
    """One run over many symbols.

    Args:
        service: where bars come from.
        store: where they go; must be held (`PriceStore.opened`).
        replies: the service's kept answers, forgotten symbol by symbol; None: nothing is kept.
        start: first date wanted; None: everything.
        until: last date wanted, settled.
        full: fetch whole histories even where an update would do.
    """

    def __init__(
        self,
        service: Service,
        store: PriceStore,
        replies: Replies | None,
        *,
        start: dt.date | None,
        until: dt.date,
        full: bool = False,
    ) -> None:
        self._service, self._store, self._replies = service, store, replies
        self._start, self._until, self._full = start, until, full

    def run(self, symbols: Sequence[str], events: Events) -> FetchReport:
        """Fetch every symbol; a failure never ends the run, an absent service does."""
        report = FetchReport(self._service.name, str(self._until), [])
        silent, answered = 0, False
        for done, symbol in enumerate(symbols):
            events.progress("prices", done, len(symbols), symbol)
            try:
                result = self._one(symbol)
            except (Unreachable, Refused, Throttled, Faulty) as error:
                result = SymbolResult(symbol, "failed", note=str(error))
                silent += 1
                answered = answered or not isinstance(error, Unreachable)
            except DataError as error:
                result = SymbolResult(symbol, "failed", note=str(error))
                silent, answered = 0, True
                self._forget(symbol)
            else:
                silent, answered = 0, answered or result.outcome != "current"
                self._forget(symbol)
            report.results.append(result)
            events.emit("price_symbol", **asdict(result))
            if silent >= (GIVE_UP if answered else NEVER_THERE):
                report.stopped = result.note
                rest = symbols[done + 1 :]
                report.results += [
                    SymbolResult(s, "failed", note="not asked: the source does not answer")
                    for s in rest
                ]
                break
        events.progress("prices", len(symbols), len(symbols))
        self._store.write_report(report.to_dict())
        return report

    def _forget(self, symbol: str) -> None:
        if self._replies is not None:
            self._replies.forget(symbol)

    def _one(self, symbol: str) -> SymbolResult:
        stored = self._store.read(symbol)
        damaged = stored is None and self._store.path(symbol).exists()
        if stored is None or self._full or not self._reaches_back(stored):
            return self._whole(symbol, stored, "damaged" if damaged else "")
        if dt.date.fromisoformat(stored.origin.through) >= self._until:
            return SymbolResult(symbol, "current", bars=len(stored.bars))
        return self._update(symbol, stored)

    def _reaches_back(self, stored: Stored) -> bool:
        begun = stored.origin.asked_from
        if begun is None:
            return True
        return self._start is not None and self._start >= dt.date.fromisoformat(begun)

    def _update(self, symbol: str, stored: Stored) -> SymbolResult:
        since = stored.bars["date"].iloc[-min(OVERLAP, len(stored.bars))]
        fresh = self._service.history(symbol, since=since.date(), until=self._until)
        if fresh.bars.empty:
            raise Unusable(
                f"no bar since {since:%Y-%m-%d}, where {OVERLAP} are stored",
                where=symbol,
                fix="the file is kept as it is; try again later",
            )
        change = find_change(stored.bars, fresh.bars, since)
        if change is not None:
            self._forget(symbol)
            return self._whole(symbol, stored, change.kind, change)
        new = fresh.bars[fresh.bars["date"] > stored.bars["date"].iloc[-1]]
        bars = pd.concat([stored.bars, new], ignore_index=True) if len(new) else stored.bars
        begun = stored.origin.asked_from
        start = None if begun is None else dt.date.fromisoformat(begun)
        self._store.write(symbol, bars, origin(self._service.name, start, self._until))
        outcome: Outcome = "updated" if len(new) else "unchanged"
        return SymbolResult(symbol, outcome, len(bars), len(new), dict(fresh.dropped))

    def _whole(
        self, symbol: str, stored: Stored | None, why: str, change: Change | None = None
    ) -> SymbolResult:
        """Fetch all of a symbol; what was there before is kept unless nothing of it changed."""
        start = self._first_wanted(stored)
        found = self._service.history(symbol, since=start, until=self._until)
        if found.bars.empty:
            raise Unusable(
                "has no bars there" + (f" ({_told(found)})" if found.dropped else ""),
                where=symbol,
                fix="check the symbol and the dates",
            )
        bars = found.bars
        if stored is not None:
            self._nothing_later(stored)
            self._nothing_lost(symbol, stored, bars)
            differs = find_change(stored.bars, bars, stored.bars["date"].iloc[0])
            why = why or ("fetched again" if differs else "")
        kept = self._store.keep_old(symbol, why.replace(" ", "-")) if why else None
        self._store.write(symbol, bars, origin(self._service.name, start, self._until))
        added = len(bars) - (0 if stored is None else len(stored.bars))
        outcome: Outcome = "new" if stored is None else "updated" if added else "unchanged"
        if why and stored is not None:
            outcome = "replaced"
        note = why if change is None else f"{why}: {_said(change)}"
        place = None if kept is None else str(kept.relative_to(self._store.folder))
        return SymbolResult(symbol, outcome, len(bars), added, dict(found.dropped), note, place)

    def _first_wanted(self, stored: Stored | None) -> dt.date | None:
        """The earlier of what is stored and what is asked for now; nothing stored gets shorter."""
        if stored is None or self._start is None:
            return self._start
        begun = stored.origin.asked_from
        return None if begun is None else min(self._start, dt.date.fromisoformat(begun))

    def _nothing_later(self, stored: Stored) -> None:
        """An earlier --end must not cut off later bars, nor may they be mixed with new ones."""
        if stored.bars["date"].iloc[-1].date() <= self._until:
            return
        raise Unusable(
            f"has bars to {stored.bars['date'].iloc[-1]:%Y-%m-%d}, later than {self._until}, and "
            "must be fetched as a whole",
            where=str(stored.bars["symbol"].iloc[0]),
            fix="leave --end out",
        )

    def _nothing_lost(self, symbol: str, stored: Stored, bars: pd.DataFrame) -> None:
        lost = int((~stored.bars["date"].isin(bars["date"])).sum())
        if lost > MOST_LOST * len(stored.bars):
            raise Unusable(
                f"the source now lacks {lost:,} of {len(stored.bars):,} stored bars",
                where=symbol,
                fix=f"{symbol}.parquet is kept as it is; move it away to accept what is there now",
            )


def _said(change: Change) -> str:
    return f"{change.days:,} of {change.compared:,} days differ, {change.example}"


def _told(found: History) -> str:
    return ", ".join(f"{count:,} rows: {why}" for why, count in found.dropped.items())


def outcome_of(report: FetchReport) -> VnquantError | None:
    """The error that a run ends with, if it does not simply end well."""
    if not report.failed:
        return None
    names = ", ".join(r.symbol for r in report.failed[:12])
    more = f" and {len(report.failed) - 12} more" if len(report.failed) > 12 else ""
    if report.stopped and len(report.failed) == len(report.results):
        return RetryableError(report.stopped.rstrip("."), fix="nothing was fetched")
    return PartialFailure(
        f"{len(report.failed)} of {len(report.results)} symbols failed: {names}{more}",
        where=report.source,
        fix="their reasons are above and in fetch.json; the same command tries them again",
    )
