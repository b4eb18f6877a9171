"""VNDirect's chart feed: epoch seconds, arrays, adjusted prices only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tests.market.collect.conftest import QUICK
from tests.market.collect.fake import Fake, Quirks
from vnquant.market.collect.answers import History
from vnquant.market.collect.client import Client
from vnquant.market.collect.crosscheck import compare
from vnquant.market.collect.dchart import VNDirectChart
from vnquant.market.collect.faults import Unusable
from vnquant.market.schema import check

Clients = Callable[..., Client]
LAST = dt.date(2020, 12, 31)
HOUR = 3600


def fetch(client: Client, symbol: str = "FPT", **words: Any) -> History:
    return VNDirectChart(client).history(symbol, **{"since": None, "until": LAST} | words)


def answering(fake: Fake, change: Callable[[Any], Any]) -> Client:
    class Changed(Client):
        def get(self, path: str, query: str, **words: Any) -> Any:
            return change(super().get(path, query, **words))

    return Changed(fake.url, referer="", manners=QUICK)


@pytest.mark.parametrize("midnight", [0, -7 * HOUR, 7 * HOUR])
def test_bars_fall_on_their_own_day(midnight: int, fake: Fake, client: Clients) -> None:
    fake.quirks = Quirks(midnight=midnight)
    found, expected = fetch(client()).bars, fake.bars["FPT"]
    check(found, where="test")
    assert list(found["date"]) == list(expected["date"])
    assert list(found["adj_close"]) == list(found["close"])
    assert (found["adj_close"] - expected["adj_close"]).abs().max() <= 0.0051
    assert list(found["volume"]) == list(expected["volume"])
    assert found["value"].isna().all()


def test_only_the_dates_asked_for(fake: Fake, client: Clients) -> None:
    found = fetch(client(), since=dt.date(2020, 3, 2), until=dt.date(2020, 6, 30)).bars
    days = fake.bars["FPT"]["date"]
    assert list(found["date"]) == list(days[(days >= "2020-03-02") & (days <= "2020-06-30")])


@pytest.mark.parametrize("said", ["ok", "no_data"])
def test_nothing_in_either_dialect(said: str, fake: Fake, client: Clients) -> None:
    fake.quirks = Quirks(no_bars=said)
    assert fetch(client(), "VCB").bars.empty


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: [], "no chart"),
        (lambda a: a | {"s": "error"}, "'error'"),
        (lambda a: a | {"c": None}, "no chart"),
        (lambda a: a | {"v": a["v"][:-1]}, "different lengths"),
        (lambda a: a | {"t": [a["t"][1], *a["t"][1:]]}, "came twice"),
    ],
)
def test_answers_that_cannot_be_trusted_are_refused(
    change: Callable[[Any], Any], says: str, fake: Fake
) -> None:
    with pytest.raises(Unusable, match=says):
        fetch(answering(fake, change))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("t", -62135596800, "impossible date"),
        ("t", 1e300, "impossible date"),
        ("t", None, "impossible date"),
        ("c", 0, "close is 0 (provisional)"),
        ("o", None, "a price or the volume is missing"),
    ],
)
def test_rows_that_are_no_bars_are_counted(name: str, value: Any, why: str, fake: Fake) -> None:
    found = fetch(answering(fake, lambda a: a | {name: [value, *a[name][1:]]}))
    assert found.dropped == {why: 1}


def test_seconds_may_be_text(fake: Fake) -> None:
    found = fetch(answering(fake, lambda a: a | {"t": [str(t) for t in a["t"]]}))
    assert len(found.bars) == len(fake.bars["FPT"])


def test_what_it_cannot_know_is_said(client: Clients) -> None:
    with pytest.raises(Unusable, match="exchange is not known"):
        fetch(client(), "ZZZ")
    with pytest.raises(Unusable, match="no list of shares"):
        VNDirectChart(client()).listing()


def test_an_event_that_one_source_missed_is_found_in_spite_of_the_basis(
    fake: Fake, client: Clients
) -> None:
    raw = fake.bars["FPT"].copy()
    raw["adj_close"] = (raw["adj_close"] / 2).round(2)
    fake.bars["FPT"] = raw.copy()
    chart = fetch(client()).bars
    found = compare(raw, chart)
    assert found.symbols.loc["FPT", "verdict"] == "basis: b's close is a's adjusted close"
    assert found.disagreements.empty
    raw.loc[:199, "adj_close"] *= 0.9
    (row,) = compare(raw, chart).disagreements.to_dict(orient="records")
    assert (row["field"], row["date"]) == ("adj_step", pd.Timestamp(raw["date"][200]))
