"""The HTTP client against every way in which a service fails to answer."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.market.collect.conftest import QUICK
from tests.market.collect.fake import CAFEF, Fake
from vnquant.errors import RETRY
from vnquant.market.collect.cache import Replies
from vnquant.market.collect.client import Client
from vnquant.market.collect.faults import Faulty, Refused, Throttled, Unreachable, Unusable
from vnquant.market.collect.reply import retry_after

Clients = Callable[..., Client]
QUESTION = "Symbol=FPT&StartDate=&EndDate=&PageIndex=1&PageSize=20"


def ask(client: Client) -> int:
    answer = client.get(CAFEF, QUESTION, group="FPT")
    return len(answer["Data"]["Data"])


@pytest.mark.parametrize(
    "fault",
    ["502", "html", "truncated", "cut", "empty", "nan", "429:0", "429", "503:0", "reset"],
)
def test_what_passes_is_asked_again(fault: str, fake: Fake, client: Clients) -> None:
    fake.faults["FPT"] = [fault]
    assert ask(client()) == 20
    assert fake.count("FPT") == 2


@pytest.mark.parametrize(
    ("fault", "kind", "says", "asked"),
    [
        ("403", Refused, "403", 1),
        ("404", Unusable, "404", 1),
        ("lost-query", Refused, "loses the question", 1),
        ("502", Faulty, "502", 3),
        ("html", Faulty, "web page instead of JSON", 3),
        ("truncated", Faulty, "no whole JSON", 3),
        ("cut", Unreachable, "broke off", 3),
        ("hang", Unreachable, "silent for 0.3 s", 3),
        ("drip", Unreachable, "not finished its answer after 0.6 s", 3),
        ("circle", Faulty, "circle", 9),
        ("429:9", Throttled, "asks for 9 s", 1),
        ("429:1", Throttled, "asks for 1 s", 3),
    ],
)
def test_what_stays_is_named(
    fault: str, kind: type[Exception], says: str, asked: int, fake: Fake, client: Clients
) -> None:
    fake.faults["FPT"] = [fault] * 20
    with pytest.raises(kind, match=says) as raised:
        ask(client(manners=replace(QUICK, most_patience=1.5)))
    assert fake.count("FPT") == asked
    assert fake.url.removeprefix("http://") in str(raised.value)


def test_retry_after_is_waited_for_and_slows_the_rest(fake: Fake, client: Clients) -> None:
    fake.faults["FPT"] = ["429:1"]
    notes: list[str] = []
    slow = client(manners=replace(QUICK, rate=10.0, jitter=0.0), say=notes.append)
    began = time.monotonic()
    ask(slow)
    assert 1.0 <= time.monotonic() - began < 3.0
    assert [n for n in notes if "asks to wait 1 s" in n]
    ask(slow)
    ask(slow)
    # Ten a second before the complaint, five after it.
    assert time.monotonic() - began >= 1.4


def test_who_asks_for_a_long_peace_is_not_asked_meanwhile(fake: Fake, client: Clients) -> None:
    fake.faults["FPT"] = ["429:2"]
    hasty = client(manners=replace(QUICK, most_patience=1.0))
    for says in ("asks for 2 s", "another 2 s"):
        with pytest.raises(Throttled, match=says):
            ask(hasty)
    assert fake.count("FPT") == 1
    time.sleep(2.0)
    assert ask(hasty) == 20


def test_a_redirect_that_keeps_the_question_is_followed(fake: Fake, client: Clients) -> None:
    fake.faults["FPT"] = ["moved"]
    assert ask(client()) == 20
    assert fake.asked[-1].startswith("/moved/")


def test_the_rate_is_kept_and_jittered(fake: Fake, client: Clients) -> None:
    steady = client(manners=replace(QUICK, rate=20.0, jitter=0.5))
    times = [time.monotonic()]
    for _ in range(9):
        ask(steady)
        times.append(time.monotonic())
    gaps = [b - a for a, b in pairwise(times)]
    assert times[-1] - times[0] >= 8 / 20.0
    assert len({round(g, 3) for g in gaps}) > 1


def test_it_looks_like_a_browser_and_reads_gzip(fake: Fake, client: Clients) -> None:
    fake.quirks.gzipped = True
    assert ask(client()) == 20
    assert fake.seen_headers["User-Agent"].startswith("Mozilla/")
    assert fake.seen_headers["Referer"] == "https://example.org/"


def test_nobody_there_is_told_quickly_and_is_worth_retrying() -> None:
    nobody = Client("http://127.0.0.1:1", referer="", manners=QUICK)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no answer") as raised:
        ask(nobody)
    assert time.monotonic() - began < 3
    assert raised.value.exit_code == RETRY


@pytest.mark.parametrize("address", ["", "nowhere", "ftp://example.org", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="write --base-url as"):
        ask(Client(address, referer="", manners=QUICK))


def test_answers_are_kept_until_forgotten(fake: Fake, client: Clients, tmp_path: Path) -> None:
    replies = Replies(tmp_path, "one")
    ask(client(replies=replies))
    ask(client(replies=replies))
    assert fake.count("FPT") == 1
    ask(client(replies=Replies(tmp_path, "another day")))
    assert fake.count("FPT") == 2
    replies.forget("FPT")
    ask(client(replies=replies))
    assert fake.count("FPT") == 3


def test_a_damaged_kept_answer_is_asked_again(fake: Fake, client: Clients, tmp_path: Path) -> None:
    replies = Replies(tmp_path, "one")
    ask(client(replies=replies))
    (file,) = tmp_path.rglob("*.json")
    file.write_text(file.read_text()[:50])
    assert ask(client(replies=replies)) == 20
    assert fake.count("FPT") == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), (" 0 ", 0.0), ("-1", None), ("soon", None), (None, None), ("1.5", None)],
)
def test_retry_after_in_seconds(text: str | None, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_retry_after_as_a_date() -> None:
    now = dt.datetime.now(dt.UTC)
    later = retry_after(format_datetime(now + dt.timedelta(seconds=60), usegmt=True))
    assert later is not None
    assert 55 < later <= 60
    assert retry_after(format_datetime(now - dt.timedelta(hours=1), usegmt=True)) == 0.0
