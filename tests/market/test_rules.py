from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.errors import DataError
from vnquant.market import rules

NOW = dt.date(2023, 6, 1)
EXCHANGES = st.sampled_from(rules.EXCHANGES)
DATES = st.dates(dt.date(2010, 1, 1), dt.date(2025, 12, 31))
PRICES = st.floats(0.2, 700.0)


def on_tick(exchange: str, price: float, date: dt.date) -> bool:
    steps = price / float(rules.tick(exchange, price, date))
    return abs(steps - round(steps)) < 1e-6


@pytest.mark.parametrize(
    ("exchange", "date", "expected"),
    [
        ("HOSE", dt.date(2013, 1, 14), 0.05),
        ("HOSE", dt.date(2013, 1, 15), 0.07),
        ("HNX", dt.date(2013, 1, 14), 0.07),
        ("HNX", dt.date(2013, 1, 15), 0.10),
        ("UPCOM", dt.date(2015, 6, 30), 0.10),
        ("UPCOM", dt.date(2015, 7, 1), 0.15),
    ],
)
def test_the_bands_change_on_their_dates(exchange, date, expected):
    assert rules.band(exchange, date) == expected
    assert rules.widest_band(date) >= expected


def test_the_first_session_has_a_wider_band():
    found = [float(rules.band(e, NOW, first_session=True)) for e in rules.EXCHANGES]
    assert found == [0.20, 0.30, 0.40]


@pytest.mark.parametrize(
    ("exchange", "price", "date", "expected"),
    [
        ("HOSE", 9.99, NOW, 0.01),
        ("HOSE", 10.0, NOW, 0.05),
        ("HOSE", 49.95, NOW, 0.05),
        ("HOSE", 50.0, NOW, 0.1),
        ("HOSE", 49.9, dt.date(2016, 9, 11), 0.1),
        ("HOSE", 50.0, dt.date(2016, 9, 11), 0.5),
        ("HOSE", 99.5, dt.date(2016, 9, 11), 0.5),
        ("HOSE", 100.0, dt.date(2016, 9, 11), 1.0),
        ("HOSE", 100.0, dt.date(2016, 9, 12), 0.1),
        ("HNX", 5.0, NOW, 0.1),
        ("UPCOM", 250.0, NOW, 0.1),
    ],
)
def test_the_tick_table(exchange, price, date, expected):
    assert rules.tick(exchange, price, date) == expected


@pytest.mark.parametrize(
    ("exchange", "reference", "date", "floor", "ceiling"),
    [
        # 24.15 x 1.07 = 25.8405 and x 0.93 = 22.4595 on ticks of 0.05.
        ("HOSE", 24.15, NOW, 22.5, 25.8),
        # 48 x 1.07 = 51.36: the tick at the result, 0.1, counts, not that at the reference.
        ("HOSE", 48.0, NOW, 44.65, 51.3),
        # 10.5 x 0.93 = 9.765: ticks of 0.01 below 10.
        ("HOSE", 10.5, NOW, 9.77, 11.2),
        # Ten per cent of 0.6 is less than a tick, and a tick is always allowed.
        ("HNX", 0.6, NOW, 0.5, 0.7),
        ("UPCOM", 12.3, NOW, 10.5, 14.1),
        # Before September 2016 on HOSE: 98 x 1.07 = 104.86 on whole thousands, 91.14 on 0.5.
        ("HOSE", 98.0, dt.date(2015, 3, 2), 91.5, 104.0),
        # A price cannot fall to nothing.
        ("UPCOM", 0.1, NOW, 0.1, 0.2),
    ],
)
def test_hand_worked_limits(exchange, reference, date, floor, ceiling):
    assert rules.floor(exchange, reference, date) == pytest.approx(floor)
    assert rules.ceiling(exchange, reference, date) == pytest.approx(ceiling)


def test_the_lot_of_hose_grew_in_2021():
    assert rules.lot("HOSE", dt.date(2021, 1, 3)) == 10
    assert rules.lot("HOSE", dt.date(2021, 1, 4)) == 100
    assert rules.lot("HNX", dt.date(2012, 1, 4)) == 100


@given(EXCHANGES, PRICES, DATES)
def test_rounding_lands_on_a_tick_nearby_and_stays(exchange, price, date):
    rounded = float(rules.round_to_tick(exchange, price, date))
    assert on_tick(exchange, rounded, date)
    assert rules.round_to_tick(exchange, rounded, date) == rounded
    step = float(rules.tick(exchange, price, date))
    assert abs(rounded - price) <= step / 2 + 1e-9 or rounded == pytest.approx(step)


@given(EXCHANGES, PRICES, DATES)
def test_limits_are_valid_and_within_the_band_or_one_tick_away(exchange, price, date):
    reference = float(rules.round_to_tick(exchange, price, date))
    band = float(rules.band(exchange, date))
    top = float(rules.ceiling(exchange, reference, date))
    bottom = float(rules.floor(exchange, reference, date))
    step = float(rules.tick(exchange, reference, date))
    assert on_tick(exchange, top, date)
    assert on_tick(exchange, bottom, date)
    assert top >= reference + step - 1e-9
    assert 0 < bottom <= max(reference - step, step) + 1e-9
    assert top <= max(reference * (1 + band), reference + step) + 1e-6
    assert bottom >= min(reference * (1 - band), reference - step) - 1e-6


@given(EXCHANGES, st.floats(0.3, 700.0), DATES)
def test_limits_of_an_average_price_off_the_grid_are_valid(exchange, reference, date):
    top = float(rules.ceiling(exchange, reference, date))
    bottom = float(rules.floor(exchange, reference, date))
    assert bottom < top
    assert top > reference - 1e-6
    assert on_tick(exchange, top, date)
    assert on_tick(exchange, bottom, date)


def test_arrays_of_exchanges_and_dates_agree_with_single_calls():
    names = np.array(["HOSE", "HNX", "UPCOM", "HOSE"])
    prices = np.array([9.87, 20.3, 14.2, 98.0])
    days = np.array(["2012-05-04", "2014-05-05", "2023-05-04", "2015-05-04"], dtype="datetime64[D]")
    for function in (rules.ceiling, rules.floor, rules.round_to_tick, rules.tick):
        single = [
            float(function(str(n), float(p), d.astype(object)))
            for n, p, d in zip(names, prices, days, strict=True)
        ]
        assert function(names, prices, days).tolist() == single


def test_an_unknown_exchange_is_named():
    with pytest.raises(DataError, match="'NYSE'"):
        rules.tick("NYSE", 10.0, NOW)
