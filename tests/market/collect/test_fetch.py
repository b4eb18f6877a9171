"""Many symbols: whoever fails is listed, updates are small, rewritten histories are replaced."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tests.market.collect.conftest import QUICK
from tests.market.collect.fake import Fake
from vnquant.errors import PARTIAL, RETRY
from vnquant.events import Event, Events
from vnquant.market.collect.answers import Service
from vnquant.market.collect.cache import Replies
from vnquant.market.collect.cafef import CafeF
from vnquant.market.collect.client import Client
from vnquant.market.collect.fetch import Fetch, FetchReport, last_settled, outcome_of
from vnquant.market.collect.store import PriceStore
from vnquant.market.collect.vndirect import VNDirect
from vnquant.market.folder import PriceFolder
from vnquant.workspace import read_json

LAST = dt.date(2020, 12, 31)
SYMBOLS = ["ACV", "FPT", "PVS"]
Run = Callable[..., FetchReport]


@pytest.fixture(params=["cafef", "vndirect"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(fake: Fake, tmp_path: Path, source: str) -> Run:
    """One fetch into the same folder, as a new process would do it."""

    def _run(
        symbols: list[str] = SYMBOLS,
        *,
        until: dt.date = LAST,
        start: dt.date | None = None,
        full: bool = False,
        listener: Callable[[Event], None] | None = None,
    ) -> FetchReport:
        replies = Replies(tmp_path / ".replies", str(until))
        client = Client(fake.url, referer="", manners=QUICK, replies=replies)
        service: Service = CafeF(client, until) if source == "cafef" else VNDirect(client)
        fetch = Fetch(service, PriceStore(tmp_path), replies, start=start, until=until, full=full)
        return fetch.run(symbols, Events(listener=listener))

    return _run


def outcomes(report: FetchReport) -> dict[str, str]:
    return {r.symbol: r.outcome for r in report.results}


def cut(fake: Fake, symbol: str, last: dt.date) -> pd.DataFrame:
    """Let the service forget what came after ``last``; returns what it had."""
    whole = fake.bars[symbol]
    fake.bars[symbol] = whole[whole["date"] <= str(last)].reset_index(drop=True)
    return whole


def stored(folder: Path, symbol: str) -> pd.DataFrame:
    return PriceFolder(folder).load([symbol]).drop(columns=["change_text"])


def test_all_arrive_and_are_read_as_prices(run: Run, fake: Fake, tmp_path: Path) -> None:
    seen: list[Event] = []
    report = run(listener=seen.append)
    assert outcomes(report) == dict.fromkeys(SYMBOLS, "new")
    assert outcome_of(report) is None
    for symbol in SYMBOLS:
        expected = fake.bars[symbol].drop(columns=["change_text"])
        assert_frame_equal(stored(tmp_path, symbol), expected, check_dtype=False)
    ticks = [(e["done"], e["total"]) for e in seen if e["event"] == "progress"]
    assert ticks == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert read_json(tmp_path / "fetch.json")["counts"] == {"new": 3}


def test_nothing_is_asked_about_what_is_complete(run: Run, fake: Fake) -> None:
    run()
    fake.asked.clear()
    assert outcomes(run()) == dict.fromkeys(SYMBOLS, "current")
    assert fake.asked == []


def test_an_update_asks_little_and_adds_what_is_new(run: Run, fake: Fake, tmp_path: Path) -> None:
    before = dt.date(2020, 11, 30)
    whole = cut(fake, "FPT", before)
    run(["FPT"], until=before)
    fake.bars["FPT"] = whole
    fake.asked.clear()
    report = run(["FPT"])
    assert outcomes(report) == {"FPT": "updated"}
    assert report.results[0].added == int((whole["date"] > str(before)).sum()) > 15
    assert fake.count("FPT") == 1
    assert len(stored(tmp_path, "FPT")) == len(whole)
    assert not (tmp_path / "replaced").exists()


def test_a_week_without_sessions_is_unchanged(run: Run, fake: Fake) -> None:
    before = dt.date(2020, 12, 24)
    cut(fake, "FPT", before)
    run(["FPT"], until=before)
    assert outcomes(run(["FPT"])) == {"FPT": "unchanged"}
    assert outcomes(run(["FPT"])) == {"FPT": "current"}


def test_a_rebased_history_is_fetched_whole_and_the_old_one_kept(
    run: Run, fake: Fake, tmp_path: Path
) -> None:
    before = dt.date(2020, 11, 30)
    whole = cut(fake, "FPT", before)
    run(["FPT"], until=before)
    old = (tmp_path / "FPT.parquet").read_bytes()
    fake.bars["FPT"] = whole
    fake.rebase("FPT", 0.5)
    report = run(["FPT"])
    (result,) = report.results
    assert result.outcome == "replaced"
    assert result.note.startswith("readjusted: 15 of 15 days differ")
    assert result.kept is not None
    assert (tmp_path / result.kept).read_bytes() == old
    found = stored(tmp_path, "FPT")
    assert list(found["adj_close"]) == list(fake.bars["FPT"]["adj_close"])
    assert len(found) == len(whole)


def test_a_corrected_bar_is_noticed(run: Run, fake: Fake, tmp_path: Path) -> None:
    before = dt.date(2020, 11, 30)
    whole = cut(fake, "FPT", before)
    run(["FPT"], until=before)
    corrected = whole.copy()
    row = int((whole["date"] <= str(before)).sum()) - 3
    corrected.loc[row, "volume"] += 100.0
    fake.bars["FPT"] = corrected
    (result,) = run(["FPT"]).results
    assert result.outcome == "replaced"
    assert "volume was" in result.note
    assert stored(tmp_path, "FPT")["volume"][row] == corrected["volume"][row]


def test_who_fails_is_listed_and_the_others_arrive(run: Run, fake: Fake, tmp_path: Path) -> None:
    fake.faults["FPT"] = ["html"] * 9
    report = run()
    assert outcomes(report) == {"ACV": "new", "FPT": "failed", "PVS": "new"}
    assert "web page" in report.failed[0].note
    error = outcome_of(report)
    assert error is not None
    assert error.exit_code == PARTIAL
    assert "1 of 3 symbols failed: FPT" in str(error)
    assert sorted(p.name for p in tmp_path.glob("*.parquet")) == ["ACV.parquet", "PVS.parquet"]
    fake.faults.clear()
    fake.asked.clear()
    assert outcomes(run()) == {"ACV": "current", "FPT": "new", "PVS": "current"}
    assert fake.count("ACV") == 0


@pytest.mark.parametrize("fault", ["403", "502", "hang", "reset", "429:100"])
def test_a_service_that_is_away_is_left_in_peace(fault: str, run: Run, fake: Fake) -> None:
    fake.faults["*"] = [fault] * 999
    # Those whose exchange is known without asking.
    symbols = ["ACB", "BID", "CTG", "FPT", "GAS", "HPG", "MBB", "VCB"]
    report = run(symbols)
    asked = {s for s in symbols if fake.count(s)}
    most = {"hang": 2, "reset": 2, "429:100": 1}
    assert len(asked) == most.get(fault, 5)
    assert report.stopped
    assert len(report.failed) == len(symbols)
    error = outcome_of(report)
    assert error is not None
    assert error.exit_code == RETRY


def test_a_few_bad_symbols_in_a_row_do_not_end_it(run: Run, fake: Fake) -> None:
    bars = fake.bars["FPT"]
    names = ["ACB", "BID", "CTG", "GAS", "VCB"]
    fake.bars |= {s: bars.assign(symbol=s) for s in names}
    for symbol in names[:4]:
        fake.faults[symbol] = ["truncated"] * 9
    assert outcomes(run(names)) == dict.fromkeys(names[:4], "failed") | {"VCB": "new"}


def test_many_symbols_without_bars_do_not_end_it(run: Run) -> None:
    unknown = ["ACB", "BCM", "BID", "BVH", "CTG", "EIB"]
    assert outcomes(run([*unknown, "FPT"])) == dict.fromkeys(unknown, "failed") | {"FPT": "new"}


def test_an_unknown_symbol_fails_alone(run: Run) -> None:
    report = run(["FPT", "VCB"])  # not among the service's bars
    assert outcomes(report) == {"FPT": "new", "VCB": "failed"}
    assert "has no bars there" in report.failed[0].note


def test_a_symbol_interrupted_halfway_does_not_ask_all_again(
    run: Run, fake: Fake, source: str
) -> None:
    fake.quirks.page_cap = 20
    if source == "vndirect":
        fake.quirks.page_cap = 40
    fake.faults["FPT"] = []
    original = fake.fault
    asked_before = 0

    def failing(symbol: str) -> str | None:
        return "reset" if fake.count("FPT") > 8 and not asked_before else original(symbol)

    fake.fault = failing  # type: ignore[method-assign]
    assert outcomes(run(["FPT"])) == {"FPT": "failed"}
    asked_before = fake.count("FPT")
    fake.asked.clear()
    assert outcomes(run(["FPT"])) == {"FPT": "new"}
    again = fake.asked.copy()
    pages = -(-len(fake.bars["FPT"]) // fake.quirks.page_cap)
    # Eight pages were kept; the first is asked once more, whether the history was rewritten.
    assert len(again) <= pages - 8 + 2


def test_start_cuts_and_an_earlier_start_fetches_more(run: Run, fake: Fake, tmp_path: Path) -> None:
    run(["FPT"], start=dt.date(2020, 6, 1))
    assert stored(tmp_path, "FPT")["date"].iloc[0] == pd.Timestamp("2020-06-01")
    assert outcomes(run(["FPT"], start=dt.date(2020, 9, 1))) == {"FPT": "current"}
    assert outcomes(run(["FPT"], start=dt.date(2020, 1, 2))) == {"FPT": "updated"}
    assert stored(tmp_path, "FPT")["date"].iloc[0] == pd.Timestamp("2020-01-02")
    assert outcomes(run(["FPT"])) == {"FPT": "updated"}
    assert len(stored(tmp_path, "FPT")) == len(fake.bars["FPT"])


def test_full_fetches_what_is_complete_too(run: Run, fake: Fake) -> None:
    run(["FPT"])
    assert outcomes(run(["FPT"], full=True)) == {"FPT": "unchanged"}
    fake.rebase("FPT", 0.5)
    assert outcomes(run(["FPT"], full=True)) == {"FPT": "replaced"}


def test_a_history_that_has_shrunk_does_not_replace_the_stored_one(
    run: Run, fake: Fake, tmp_path: Path
) -> None:
    run(["FPT"])
    before = (tmp_path / "FPT.parquet").read_bytes()
    fake.bars["FPT"] = fake.bars["FPT"].tail(200).reset_index(drop=True)
    report = run(["FPT"], full=True)
    assert outcomes(report) == {"FPT": "failed"}
    assert "lacks" in report.failed[0].note
    assert (tmp_path / "FPT.parquet").read_bytes() == before


def test_a_damaged_file_is_fetched_anew_and_kept(run: Run, tmp_path: Path) -> None:
    run(["FPT"])
    path = tmp_path / "FPT.parquet"
    damaged = path.read_bytes()[:2000]
    path.write_bytes(damaged)
    (result,) = run(["FPT"]).results
    assert result.outcome == "new"
    assert result.kept is not None
    assert (tmp_path / result.kept).read_bytes() == damaged


def test_replies_are_forgotten_once_the_bars_are_stored(run: Run, tmp_path: Path) -> None:
    run(["FPT"])
    assert not list((tmp_path / ".replies").rglob("FPT/*"))


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2026-11-23T08:29:00+00:00", "2026-11-22"),
        ("2026-11-23T08:30:00+00:00", "2026-11-23"),
        ("2026-11-23T17:30:00+00:00", "2026-11-23"),  # past midnight there
        ("2026-11-23T15:29:00+07:00", "2026-11-22"),
    ],
)
def test_today_counts_after_the_close_in_viet_nam(now: str, last: str) -> None:
    assert last_settled(dt.datetime.fromisoformat(now)) == dt.date.fromisoformat(last)
