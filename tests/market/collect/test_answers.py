"""Numbers, dates and units as services write them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.market.collect.answers import day, number, price_scale, value_in_vnd


@pytest.mark.parametrize(
    ("given_value", "meant"),
    [
        (20.3, 20.3), (20, 20.0), ("20.3", 20.3), ("1,166.59", 1166.59), (True, None), (None, None),
        ("", None), ("nan", None), ("inf", None), (float("nan"), None), ([], None), (10**400, None),
    ],
)  # fmt: skip
def test_numbers(given_value: Any, meant: float | None) -> None:
    assert number(given_value) == meant


@pytest.mark.parametrize(
    ("text", "form", "meant"),
    [
        ("14/03/2023", "%d/%m/%Y", dt.date(2023, 3, 14)),
        (" 2025-01-02 ", "%Y-%m-%d", dt.date(2025, 1, 2)),
        ("01/01/0001", "%d/%m/%Y", None),
        ("31/02/2023", "%d/%m/%Y", None),
        (20230314, "%Y%m%d", None),
        (None, "%Y-%m-%d", None),
    ],
)
def test_dates(text: Any, form: str, meant: dt.date | None) -> None:
    assert day(text, form) == meant


@given(
    close=st.floats(0.5, 500),
    volume=st.integers(10_000, 10**8),
    average=st.floats(0.8, 1.25),
)
def test_values_of_either_unit_agree(close: float, volume: int, average: float) -> None:
    vnd = round(close * 1000.0 * average * volume)
    assert value_in_vnd(vnd, volume, close) == vnd
    billions = round(vnd / 1e9, 2)
    if billions >= 0.01:  # coarser ones say nothing
        found = value_in_vnd(billions, volume, close)
        assert found is not None
        assert abs(found - vnd) <= 5.1e6


@pytest.mark.parametrize(
    ("value", "volume", "close"), [(None, 1e6, 20.0), (0.0, 0.0, 20.0), (2500.0, 1e6, 20.0)]
)
def test_a_value_that_fits_no_unit_stays(value: float | None, volume: float, close: float) -> None:
    assert value_in_vnd(value, volume, close) == value


def test_the_unit_of_prices_is_what_most_bars_say() -> None:
    thousands = [(20.3, 1e6, 20.3e9)] * 20
    dong = [(20300.0, 1e6, 20.3e9)] * 20
    assert price_scale(thousands) == 1.0
    assert price_scale(dong) == 1000.0
    assert price_scale([*thousands, dong[0]]) == 1.0
    assert price_scale(thousands + dong) is None
    assert price_scale([(20.3, 0.0, 0.0)]) is None
