"""VNDirect's statistics API: units, pages and everything odd that it may answer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from pandas.testing import assert_frame_equal

from tests.market.collect.conftest import QUICK
from tests.market.collect.fake import FINFO_LIST, Fake, Quirks, finfo_row
from vnquant.market.collect.answers import History
from vnquant.market.collect.client import Client
from vnquant.market.collect.faults import Faulty, Unusable
from vnquant.market.collect.vndirect import VNDirect
from vnquant.market.schema import check

Clients = Callable[..., Client]
LAST = dt.date(2020, 12, 31)


def fetch(client: Client, symbol: str = "FPT", **words: Any) -> History:
    dates = {"since": None, "until": LAST} | words
    return VNDirect(client).history(symbol, **dates)


def answering(fake: Fake, change: Callable[[Any], Any]) -> Client:
    """A client whose answers are changed on the way."""

    class Changed(Client):
        def get(self, path: str, query: str, **words: Any) -> Any:
            return change(super().get(path, query, **words))

    return Changed(fake.url, referer="", manners=QUICK)


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(),
        Quirks(page_cap=100),
        Quirks(price_unit=1000.0),
        Quirks(page_cap=100, price_unit=1000.0),
    ],
    ids=["thousands", "pages", "dong", "dong in pages"],
)
def test_units_and_pages_give_the_same_bars(quirks: Quirks, fake: Fake, client: Clients) -> None:
    fake.quirks = quirks
    found = fetch(client()).bars
    check(found, where="test")
    expected = fake.bars["FPT"].drop(columns="change_text")
    assert_frame_equal(found.drop(columns="change_text"), expected, check_dtype=False, rtol=1e-12)
    assert set(found["change_text"]) == {f"0.2({0.995:.2f} %)"}


def test_a_share_near_one_dong_thousand_keeps_its_unit(fake: Fake, client: Clients) -> None:
    """Guessing by magnitude would take 0.9 for dong and 900 for thousands."""
    cheap = fake.bars["ACV"].copy()
    prices = ["open", "high", "low", "close", "adj_close"]
    cheap[prices] = (cheap[prices] / cheap["close"].median() * 0.9).round(3)
    cheap["value"] = (cheap["close"] * 1000.0 * cheap["volume"]).round()
    fake.bars["ACV"] = cheap
    for unit in (1.0, 1000.0):
        fake.quirks = Quirks(price_unit=unit)
        found = fetch(client(), "ACV").bars
        assert (found["close"] - cheap["close"]).abs().max() < 1e-9


def test_a_share_that_never_traded_is_in_the_unit_of_those_before(
    fake: Fake, client: Clients
) -> None:
    idle = fake.bars["ACV"].assign(volume=0.0, value=0.0)
    fake.bars["ACV"] = idle
    fake.quirks = Quirks(price_unit=1000.0)
    service = VNDirect(client())
    service.history("FPT", since=None, until=LAST)
    found = service.history("ACV", since=None, until=LAST).bars
    assert (found["close"] - idle["close"]).abs().max() < 1e-9


def test_the_question_is_not_percent_encoded(fake: Fake, client: Clients) -> None:
    raw: list[str] = []

    class Noting(Client):
        def get(self, path: str, query: str, **words: Any) -> Any:
            raw.append(query)
            return super().get(path, query, **words)

    fetch(Noting(fake.url, referer="", manners=client().manners), since=dt.date(2020, 1, 2))
    assert raw[0].endswith("q=code:FPT~date:gte:2020-01-02~date:lte:2020-12-31")


def test_only_the_dates_asked_for(fake: Fake, client: Clients) -> None:
    found = fetch(client(), since=dt.date(2020, 3, 2), until=dt.date(2020, 6, 30)).bars
    days = fake.bars["FPT"]["date"]
    assert list(found["date"]) == list(days[(days >= "2020-03-02") & (days <= "2020-06-30")])


def test_an_unknown_code_has_no_bars(client: Clients) -> None:
    assert fetch(client(), "ZZZ").bars.empty


def test_the_list_has_every_share_with_its_exchange(fake: Fake, client: Clients) -> None:
    assert VNDirect(client()).listing() == {"ACV": "UPCOM", "FPT": "HOSE", "PVS": "HNX"}
    assert any(FINFO_LIST in a for a in fake.asked)
    fake.bars = {}
    with pytest.raises(Unusable, match="empty"):
        VNDirect(client()).listing()


def test_a_row_on_two_pages_is_one_bar(fake: Fake) -> None:
    fake.quirks.page_cap = 100
    seen: list[Any] = []

    def overlap(answer: Any) -> Any:
        again = seen[-1:]
        seen[:] = answer["data"]
        return answer | {"data": again + answer["data"] if answer["currentPage"] > 1 else seen}

    found = fetch(answering(fake, overlap))
    assert len(found.bars) == len(fake.bars["FPT"])
    assert found.dropped["the same row again"] >= 4


def test_a_history_rewritten_while_it_is_read_is_refused(fake: Fake) -> None:
    fake.quirks.page_cap = 100

    def rebase(answer: Any) -> Any:
        if answer["currentPage"] == 3:
            fake.rebase("FPT", 0.5)
        return answer

    with pytest.raises(Unusable, match="changed while it was read"):
        fetch(answering(fake, rebase))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: [], "no data"),
        (lambda a: a | {"data": {"code": "FPT"}}, "no data"),
        (lambda a: a | {"totalElements": 9999}, r"counts 9,999 rows, but only \d+ came"),
        (lambda a: a | {"totalPages": 10**6}, "of no use"),
        (lambda a: a | {"data": [], "totalPages": 3}, "of no use"),
        (lambda a: a | {"data": [r | {"code": "VCB"} for r in a["data"]]}, "gives VCB"),
        (lambda a: a | {"data": [r | {"floor": "LSE"} for r in a["data"]]}, "exchange 'LSE'"),
        (
            lambda a: a | {"data": [r | {"nmValue": r["nmValue"] / 30} for r in a["data"]]},
            "does not tell",
        ),
    ],
)
def test_answers_that_cannot_be_trusted_are_refused(
    change: Callable[[Any], Any], says: str, fake: Fake
) -> None:
    with pytest.raises(Unusable, match=says):
        fetch(answering(fake, change))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"date": "0001-01-01"}, "impossible date"),
        ({"date": "14/03/2019"}, "impossible date"),
        ({"close": 0.0}, "close is 0 (provisional)"),
        ({"adClose": None}, "a price or the volume is missing"),
        ({"date": "2021-01-04"}, "outside the dates"),
    ],
)
def test_rows_that_are_no_bars_are_counted(change: dict[str, Any], why: str, fake: Fake) -> None:
    odd = finfo_row(fake.bars["FPT"].iloc[0].to_dict(), 1.0) | change

    def spoil(answer: Any) -> Any:
        return answer | {"data": [*answer["data"][:-1], odd]}

    found = fetch(answering(fake, spoil))
    assert found.dropped == {why: 1}
    assert len(found.bars) == len(fake.bars["FPT"]) - 1


def test_a_fault_of_the_service_is_passed_on(fake: Fake, client: Clients) -> None:
    fake.faults["FPT"] = ["html"] * 3
    with pytest.raises(Faulty, match="web page"):
        fetch(client())
