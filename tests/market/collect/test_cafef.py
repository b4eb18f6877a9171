"""CafeF: every server that has been seen gives the same bars, or a named fault, never a hole."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tests.market.collect.fake import CAFEF_LIST, Fake, Quirks, cafef_row
from vnquant.market.collect.answers import History
from vnquant.market.collect.cafef import CafeF
from vnquant.market.collect.cafef_page import parse
from vnquant.market.collect.client import Client
from vnquant.market.collect.faults import Unusable
from vnquant.market.schema import check

Clients = Callable[..., Client]
LAST = dt.date(2020, 12, 31)
MODERN = Quirks(page_cap=20, window=65)


def fetch(client: Client, symbol: str = "FPT", **words: Any) -> History:
    dates = {"since": None, "until": LAST} | words
    return CafeF(client, settled=LAST).history(symbol, **dates)


def same(found: pd.DataFrame, expected: pd.DataFrame, *, value_slack: float = 0.0) -> None:
    check(found, where="test")
    assert_frame_equal(
        found.drop(columns="value"),
        expected.drop(columns="value").reset_index(drop=True),
        check_dtype=False,
    )
    gap = (found["value"] - expected["value"].reset_index(drop=True)).abs()
    assert gap.max() <= value_slack


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(),
        Quirks(page_cap=20),
        Quirks(page_cap=20, no_count=True),
        Quirks(page_cap=20, overlap=True),
        Quirks(page_cap=20, twice=True),
        Quirks(page_cap=20, twice=True, no_count=True),
        Quirks(page_cap=7, overlap=True, twice=True, no_count=True),
        Quirks(impossible_row=True, page_cap=20),
        Quirks(provisional=dt.date(2021, 1, 4)),
        MODERN,
        Quirks(page_cap=20, window=65, whole_count=True),
        Quirks(page_cap=20, window=65, no_count=True),
        Quirks(window=65),
        Quirks(window=65, whole_count=True),
        Quirks(page_cap=20, window=65, twice=True),
        Quirks(page_cap=20, window=65, impossible_row=True, provisional=dt.date(2021, 1, 4)),
        Quirks(page_cap=20, window=65, date_form="%d/%m/%Y"),
        Quirks(page_cap=20, window=65, date_form="%Y-%m-%d"),
        Quirks(page_cap=20, window=65, date_form="%Y/%m/%d"),
        Quirks(page_cap=20, window=65, date_form="%d/%m/%Y", misread="unfiltered"),
        Quirks(page_cap=20, window=65, date_form="%m/%d/%Y", misread="unfiltered"),
    ],
    ids=lambda q: ",".join(f"{k}={v}" for k, v in vars(q).items() if v != getattr(Quirks(), k)),
)
def test_every_server_gives_the_whole_history(quirks: Quirks, fake: Fake, client: Clients) -> None:
    fake.quirks = quirks
    same(fetch(client()).bars, fake.bars["FPT"])


@pytest.mark.parametrize("quirks", [Quirks(), MODERN], ids=["2025", "2026"])
def test_values_in_billions_become_vnd(quirks: Quirks, fake: Fake, client: Clients) -> None:
    fake.quirks = Quirks(**{**vars(quirks), "value_unit": 1e9})
    same(fetch(client()).bars, fake.bars["FPT"], value_slack=5e6)


def test_a_short_history_does_not_shrink_the_pages_of_the_next(fake: Fake, client: Clients) -> None:
    fake.quirks = Quirks(no_count=True)
    whole = fake.bars["PVS"]
    fake.bars["PVS"] = whole.tail(5).reset_index(drop=True)
    service = CafeF(client(), settled=LAST)
    assert len(service.history("PVS", since=None, until=LAST).bars) == 5
    assert len(service.history("FPT", since=None, until=LAST).bars) == len(fake.bars["FPT"])
    assert fake.count("FPT") <= 4


def test_a_symbol_that_rarely_trades_does_not_hide_that_the_server_cuts(
    fake: Fake, client: Clients
) -> None:
    fake.quirks = MODERN
    fake.bars["ACV"] = fake.bars["ACV"].iloc[::5].reset_index(drop=True)  # 65 rows span 15 months
    service = CafeF(client(), settled=LAST)
    for symbol in ("ACV", "FPT"):
        same(service.history(symbol, since=None, until=LAST).bars, fake.bars[symbol])


def test_a_day_that_equals_its_month_does_not_settle_how_dates_are_written(
    fake: Fake, client: Clients
) -> None:
    fake.quirks = Quirks(page_cap=20, window=65, date_form="%d/%m/%Y")
    whole = fake.bars["FPT"]
    fake.bars["FPT"] = whole[whole["date"] <= "2019-12-12"].reset_index(drop=True)
    same(fetch(client()).bars, fake.bars["FPT"])


def test_one_repeated_row_does_not_end_the_paging(fake: Fake, client: Clients) -> None:
    fake.quirks = Quirks(page_cap=20, no_count=True)

    class Repeating(Client):
        def get(self, path: str, query: str, **words: Any) -> Any:
            answer = super().get(path, query, **words)
            if "PageIndex=1&" in query:
                answer["Data"]["Data"].append(answer["Data"]["Data"][-1])
            return answer

    found = CafeF(Repeating(fake.url, referer="", manners=client().manners), LAST)
    found._cuts = False  # or what paging loses would be found again by windows
    same(found.history("FPT", since=None, until=LAST).bars, fake.bars["FPT"])


def test_a_long_suspension_is_stepped_over(fake: Fake, client: Clients) -> None:
    fake.quirks = MODERN
    whole = fake.bars["FPT"]
    resumed = whole["date"] >= "2020-07-01"
    fake.bars["FPT"] = whole[resumed | (whole["date"] < "2019-06-01")].reset_index(drop=True)
    same(fetch(client()).bars, fake.bars["FPT"])


@pytest.mark.parametrize("quirks", [Quirks(), MODERN], ids=["2025", "2026"])
def test_only_the_dates_asked_for(quirks: Quirks, fake: Fake, client: Clients) -> None:
    fake.quirks = quirks
    since, until = dt.date(2020, 3, 10), dt.date(2020, 11, 20)
    found = fetch(client(), since=since, until=until).bars
    days = fake.bars["FPT"]["date"]
    same(found, fake.bars["FPT"][(days >= str(since)) & (days <= str(until))])


def test_an_update_is_one_question_where_pages_are_large(fake: Fake, client: Clients) -> None:
    since = fake.bars["FPT"]["date"].iloc[-15].date()
    assert len(fetch(client(), since=since).bars) == 15
    assert fake.count("FPT") == 1


def test_a_session_that_is_not_over_is_left_out(fake: Fake, client: Clients) -> None:
    found = CafeF(client(), settled=LAST - dt.timedelta(days=1)).history(
        "FPT", since=None, until=LAST
    )
    assert found.bars["date"].iloc[-1].date() < LAST
    assert found.dropped["its session is not over"] == 1


@pytest.mark.parametrize("null", [False, True])
def test_an_unknown_symbol_has_no_bars(null: bool, fake: Fake, client: Clients) -> None:
    fake.quirks.null_data = null
    assert fetch(client(), "VCB").bars.empty  # its exchange is known, its bars are not there


def test_exchanges_come_from_the_list(fake: Fake, client: Clients) -> None:
    fake.bars["QQQ"] = fake.bars["PVS"].assign(symbol="QQQ", exchange="UPCOM")
    assert set(fetch(client(), "QQQ").bars["exchange"]) == {"UPCOM"}
    assert CafeF(client(), LAST).listing() == {
        "ACV": "UPCOM", "FPT": "HOSE", "PVS": "HNX", "QQQ": "UPCOM"
    }  # fmt: skip
    with pytest.raises(Unusable, match="not on CafeF's list"):
        fetch(client(), "ZZZ")


def test_a_list_that_fails_does_not_take_the_others_along(fake: Fake, client: Clients) -> None:
    service = CafeF(client(), settled=LAST)
    fake.faults["*"] = ["403"] * 3
    for symbol in ("QQA", "QQB", "QQC"):
        with pytest.raises(Exception, match="403"):
            service.history(symbol, since=None, until=LAST)
    with pytest.raises(Unusable, match=r"exchange is not known.*403"):
        service.history("QQD", since=None, until=LAST)
    assert sum(CAFEF_LIST in a.lower() for a in fake.asked) == 3
    same(service.history("FPT", since=None, until=LAST).bars, fake.bars["FPT"])


def test_a_history_rewritten_while_it_is_read_is_refused(fake: Fake, client: Clients) -> None:
    fake.quirks = Quirks(page_cap=20)

    class Rebasing(Client):
        def get(self, path: str, query: str, **words: Any) -> Any:
            if "PageIndex=9&" in query:
                fake.rebase("FPT", 0.5)
            return super().get(path, query, **words)

    patient = client()
    with pytest.raises(Unusable, match="changed while it was read"):
        fetch(Rebasing(fake.url, referer="", manners=patient.manners))


def test_a_count_that_is_never_reached_is_refused(fake: Fake, client: Clients) -> None:
    class Losing(Client):
        def get(self, path: str, query: str, **words: Any) -> Any:
            answer = super().get(path, query, **words)
            if answer["Data"]:
                answer["Data"]["TotalCount"] = 9999
            return answer

    with pytest.raises(Unusable, match=r"counts 9,999 rows, but only \d+ came"):
        fetch(Losing(fake.url, referer="", manners=client().manners))


ROW = {
    "Symbol": "FPT",
    "Ngay": "14/03/2019",
    "GiaDieuChinh": 18.42,
    "GiaDongCua": 20.3,
    "ThayDoi": "96.71(1,166.59 %)",
    "KhoiLuongKhopLenh": 1234500,
    "GiaTriKhopLenh": 25024670000,
    "GiaMoCua": "20.5",
    "GiaCaoNhat": 20.6,
    "GiaThapNhat": 20.1,
    "TradingReport": {"new": "key"},
}


def page(*rows: Any) -> Any:
    return parse({"Data": {"TotalCount": len(rows), "Data": list(rows)}}, "FPT", LAST)


def test_a_row_becomes_a_bar_in_the_schemas_units() -> None:
    (bar,) = page(ROW).bars.values()
    assert bar == {
        "date": dt.date(2019, 3, 14),
        "open": 20.5,
        "high": 20.6,
        "low": 20.1,
        "close": 20.3,
        "adj_close": 18.42,
        "volume": 1234500.0,
        "value": 25024670000.0,
        "change_text": "96.71(1,166.59 %)",
    }
    (billions,) = page(ROW | {"GiaTriKhopLenh": 25.02}).bars.values()
    assert billions["value"] == 25.02e9


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"Ngay": "01/01/0001"}, "impossible date"),
        ({"Ngay": "31/02/2019"}, "impossible date"),
        ({"Ngay": None}, "impossible date"),
        ({"GiaDongCua": 0.0}, "provisional"),
        ({"GiaDongCua": None}, "provisional"),
        ({"GiaMoCua": None}, "missing"),
        ({"KhoiLuongKhopLenh": "many"}, "missing"),
        ({"Ngay": "04/01/2021"}, "not over"),
    ],
)
def test_useless_rows_are_counted_by_reason(change: dict[str, Any], why: str) -> None:
    found = page(ROW | change)
    assert not found.bars
    ((said, count),) = found.useless.items()
    assert why in said
    assert count == 1


def test_the_same_row_twice_is_one_bar_and_two_different_ones_are_refused() -> None:
    assert page(ROW, ROW).repeated == 1
    with pytest.raises(Unusable, match="2019-03-14 came twice"):
        page(ROW, ROW | {"GiaDongCua": 20.4})


@pytest.mark.parametrize("answer", [[], {}, {"Data": []}, {"Data": {"Data": {}}}, "no", None])
def test_another_structure_is_refused(answer: Any) -> None:
    with pytest.raises(Unusable, match=r"no Data\.Data"):
        parse(answer, "FPT", LAST)


@pytest.mark.parametrize("answer", [{"Data": None}, {"Data": {"Data": None}}])
def test_nothing_in_either_dialect(answer: Any) -> None:
    assert not parse(answer, "FPT", LAST).bars


def test_rows_of_another_symbol_are_refused(fake: Fake) -> None:
    row = cafef_row(fake.bars["PVS"].iloc[0].to_dict(), 1.0)
    with pytest.raises(Unusable, match="asked for FPT, it gives PVS"):
        page(row)
