"""A loopback service of three symbols, and clients that are quick about everything."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import pandas as pd
import pytest

from tests.market.collect.fake import Fake, serving
from vnquant.market.collect.client import Client, Manners
from vnquant.market.synthetic import SyntheticMarket

QUICK = Manners(
    rate=500.0,
    connect_seconds=1.0,
    silence_seconds=0.3,
    answer_seconds=0.6,
    attempts=3,
    first_wait=0.01,
    most_wait=0.05,
    most_patience=3.0,
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is asked directly, whatever this machine has configured."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="session")
def two_years() -> dict[str, pd.DataFrame]:
    """Bars of 2019 and 2020 of one symbol for each exchange; values in whole VND."""
    raw = SyntheticMarket(7).load(
        ["FPT", "PVS", "ACV"], start=dt.date(2019, 1, 2), end=dt.date(2020, 12, 31)
    )
    return {str(s): f.reset_index(drop=True) for s, f in raw.groupby("symbol")}


@pytest.fixture
def fake(two_years: dict[str, pd.DataFrame]) -> Iterator[Fake]:
    with serving(Fake(dict(two_years))) as played:
        yield played


@pytest.fixture
def client(fake: Fake) -> Callable[..., Client]:
    """Clients of the loopback service; keywords as for `Client`."""

    def _client(**words: object) -> Client:
        given = {"referer": "https://example.org/", "manners": QUICK} | words
        return Client(fake.url, **given)  # type: ignore[arg-type]

    return _client
