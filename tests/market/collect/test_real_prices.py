"""Real histories through both services: what was served is what is stored, bar for bar."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tests.market.collect.conftest import QUICK
from tests.market.collect.fake import Fake, Quirks, serving
from vnquant.events import Events
from vnquant.market.collect.answers import Service
from vnquant.market.collect.cafef import CafeF
from vnquant.market.collect.client import Client
from vnquant.market.collect.fetch import Fetch
from vnquant.market.collect.store import PriceStore
from vnquant.market.collect.vndirect import VNDirect
from vnquant.market.folder import PriceFolder

SYMBOLS = ["ACV", "FPT", "PVS", "SHB", "VCB"]
LAST = dt.date(2023, 12, 29)
NUMBERS = ["open", "high", "low", "close", "adj_close", "volume"]


@pytest.fixture(scope="module")
def real(shared_prices: Path) -> dict[str, pd.DataFrame]:
    raw = PriceFolder(shared_prices).load(SYMBOLS)
    return {str(s): f.reset_index(drop=True) for s, f in raw.groupby("symbol")}


@pytest.mark.parametrize(
    ("source", "quirks"),
    [
        ("cafef", Quirks()),
        ("cafef", Quirks(page_cap=100, value_unit=1e9)),
        ("vndirect", Quirks()),
        ("vndirect", Quirks(price_unit=1000.0)),
    ],
    ids=["cafef", "cafef, pages and billions", "vndirect", "vndirect, dong"],
)
def test_real_histories_arrive_whole(
    source: str, quirks: Quirks, real: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    with serving(Fake(real, quirks=quirks)) as fake:
        client = Client(fake.url, referer="", manners=QUICK)
        service: Service = CafeF(client, LAST) if source == "cafef" else VNDirect(client)
        fetch = Fetch(service, PriceStore(tmp_path), None, start=None, until=LAST)
        report = fetch.run(SYMBOLS, Events())
    assert [(r.symbol, r.outcome, r.note) for r in report.results] == [
        (s, "new", "") for s in SYMBOLS
    ]
    for symbol, expected in real.items():
        found = PriceFolder(tmp_path).load([symbol])
        traded = expected[expected["close"] > 0].reset_index(drop=True)
        assert len(found) >= 0.999 * len(expected)
        columns = ["date", *NUMBERS]
        assert_frame_equal(found[columns], traded[columns], check_dtype=False, rtol=1e-12)
