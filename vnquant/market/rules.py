"""Price bands, ticks and lots of HOSE, HNX and UPCOM by date. Prices in thousand VND.

The dates and sizes were checked on real closes; what only a broker's page says is marked "page".
Every function works on scalars and on arrays and broadcasts: ``exchange`` is a name or an array of
names, ``date`` a `datetime.date` or an array of datetime64, prices are floats. ETFs, warrants and
the band cuts of 2008 are not modelled.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt

from vnquant.errors import DataError

EXCHANGES = ("HOSE", "HNX", "UPCOM")

Array = npt.NDArray[np.float64]
Names = str | npt.NDArray[np.str_]
Dates = dt.date | np.datetime64 | npt.NDArray[np.datetime64]
Prices = float | Array

BAND_CHANGE = dt.date(2013, 1, 15)
"""HOSE 5 to 7 %, HNX 7 to 10 %."""
UPCOM_BAND_CHANGE = dt.date(2015, 7, 1)
"""UPCOM 10 to 15 %."""
HOSE_TICK_CHANGE = dt.date(2016, 9, 12)
HOSE_LOT_CHANGE = dt.date(2021, 1, 4)

_EPS = 1e-9  # relative slack, so that 0.1 * 3 counts as on the 0.1 grid


def _since(date: Dates, change: dt.date) -> npt.NDArray[np.bool_]:
    return np.asarray(date, dtype="datetime64[D]") >= np.datetime64(change)


def _by_exchange(exchange: Names, hose: Prices, hnx: Prices, upcom: Prices) -> Array:
    name = np.asarray(exchange)
    is_hose, is_hnx, is_upcom = (name == known for known in EXCHANGES)
    other = ~(is_hose | is_hnx | is_upcom)
    if other.any():
        raise DataError(
            f"unknown exchange {str(name[other].flat[0])!r}",
            where="market rules",
            fix=f"use one of {', '.join(EXCHANGES)}",
        )
    return np.where(is_hose, hose, np.where(is_hnx, hnx, upcom))


def band(exchange: Names, date: Dates, *, first_session: bool = False) -> Array:
    """Largest move from the reference price, as a fraction (0.07 is 7 %).

    ``first_session``: the wider band of the first session of a new or resumed share (page).

    Raises:
        DataError: an exchange other than HOSE, HNX and UPCOM.
    """
    if first_session:
        return _by_exchange(exchange, 0.20, 0.30, 0.40)
    new = _since(date, BAND_CHANGE)
    upcom = np.where(_since(date, UPCOM_BAND_CHANGE), 0.15, 0.10)
    return _by_exchange(exchange, np.where(new, 0.07, 0.05), np.where(new, 0.10, 0.07), upcom)


def widest_band(date: Dates) -> Array:
    """The widest band of any exchange on a date: no ordinary move of any share exceeds it."""
    hose, hnx, upcom = (band(name, date) for name in EXCHANGES)
    widest: Array = np.maximum(np.maximum(hose, hnx), upcom)
    return widest


def tick(exchange: Names, price: Prices, date: Dates) -> Array:
    """The price step at a price, thousand VND."""
    p = np.asarray(price, dtype=np.float64) * (1 + _EPS)
    now = np.where(p < 10, 0.01, np.where(p < 50, 0.05, 0.1))
    before = np.where(p < 50, 0.1, np.where(p < 100, 0.5, 1.0))
    return _by_exchange(exchange, np.where(_since(date, HOSE_TICK_CHANGE), now, before), 0.1, 0.1)


def lot(exchange: Names, date: Dates) -> Array:
    """Shares in a round lot."""
    hose = np.where(_since(date, HOSE_LOT_CHANGE), 100.0, 10.0)
    return _by_exchange(exchange, hose, 100.0, 100.0)


def _tidy(price: Array) -> Array:
    # All ticks are multiples of 10 VND = 0.01; this removes binary dust such as 24.150000000000002.
    return np.round(price, 2)


def round_to_tick(exchange: Names, price: Prices, date: Dates) -> Array:
    """The nearest valid price, at least one tick."""
    p = np.asarray(price, dtype=np.float64)
    step = tick(exchange, p, date)
    return _tidy(np.maximum(np.round(p / step), 1) * step)


def ceiling(
    exchange: Names, reference: Prices, date: Dates, *, first_session: bool = False
) -> Array:
    """The highest valid price of a session; ``first_session`` as in `band`.

    floor(reference x (1 + band) / tick) x tick with the tick at the resulting price, but never
    less than the first valid price above the reference: one tick from a reference on a tick.
    """
    ref = np.asarray(reference, dtype=np.float64)
    raw = ref * (1 + band(exchange, date, first_session=first_session))
    step, near = tick(exchange, raw, date), tick(exchange, ref, date)
    top = np.floor(raw / step * (1 + _EPS)) * step
    above = (np.floor(ref / near * (1 + _EPS)) + 1) * near
    return _tidy(np.maximum(top, above))


def floor(exchange: Names, reference: Prices, date: Dates, *, first_session: bool = False) -> Array:
    """The lowest valid price of a session, positive; mirrors `ceiling`."""
    ref = np.asarray(reference, dtype=np.float64)
    raw = ref * (1 - band(exchange, date, first_session=first_session))
    step, near = tick(exchange, raw, date), tick(exchange, ref, date)
    bottom = np.ceil(raw / step * (1 - _EPS)) * step
    below = (np.ceil(ref / near * (1 - _EPS)) - 1) * near
    least = tick(exchange, step, date)
    return _tidy(np.maximum(np.minimum(bottom, below), least))
