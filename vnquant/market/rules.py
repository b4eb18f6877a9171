"""Price bands, ticks and lots of HOSE, HNX and UPCOM by date. Prices in thousand VND.

Checked on real closes (docs/market-rules.md gives the evidence of each row). Every function works
on scalars and on arrays; ``exchange`` is one name or an array of names.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt

EXCHANGES = ("HOSE", "HNX", "UPCOM")

Names = str | npt.NDArray[np.str_]
Prices = float | npt.NDArray[np.float64]

BAND_CHANGE = dt.date(2013, 1, 15)
UPCOM_BAND_CHANGE = dt.date(2015, 7, 1)
HOSE_TICK_CHANGE = dt.date(2016, 9, 12)
HOSE_LOT_CHANGE = dt.date(2021, 1, 4)

_EPS = 1e-9  # relative slack, so that 0.1 * 3 counts as on the 0.1 grid


def _by_exchange(exchange: Names, hose: Prices, hnx: Prices, upcom: Prices) -> npt.NDArray[np.float64]:
    name = np.asarray(exchange)
    known = np.isin(name, EXCHANGES)
    if not known.all():
        raise ValueError(f"unknown exchange {name[~known].flat[0]!r}; known: {', '.join(EXCHANGES)}")
    return np.where(name == "HOSE", hose, np.where(name == "HNX", hnx, upcom))


def band(exchange: Names, date: dt.date, *, first_session: bool = False) -> npt.NDArray[np.float64]:
    """Largest move from the reference price, as a fraction (0.07 = 7 %)."""
    if first_session:
        return _by_exchange(exchange, 0.20, 0.30, 0.40)
    new = date >= BAND_CHANGE
    upcom = 0.15 if date >= UPCOM_BAND_CHANGE else 0.10
    return _by_exchange(exchange, 0.07 if new else 0.05, 0.10 if new else 0.07, upcom)


def widest_band(date: dt.date) -> float:
    """The widest band of any exchange on a date: no ordinary move of any share exceeds it."""
    return float(max(band(name, date) for name in EXCHANGES))


def tick(exchange: Names, price: Prices, date: dt.date) -> npt.NDArray[np.float64]:
    """The price step at a price."""
    p = np.asarray(price, dtype=np.float64) * (1 + _EPS)
    if date >= HOSE_TICK_CHANGE:
        hose = np.where(p < 10, 0.01, np.where(p < 50, 0.05, 0.1))
    else:
        hose = np.where(p < 50, 0.1, np.where(p < 100, 0.5, 1.0))
    return _by_exchange(exchange, hose, 0.1, 0.1)


def lot(exchange: Names, date: dt.date) -> npt.NDArray[np.float64]:
    """Shares in a round lot."""
    return _by_exchange(exchange, 100.0 if date >= HOSE_LOT_CHANGE else 10.0, 100.0, 100.0)


def _clean(price: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # All ticks are multiples of 10 VND = 0.01; this removes binary dust such as 24.150000000000002.
    return np.round(price, 2)


def round_to_tick(exchange: Names, price: Prices, date: dt.date) -> npt.NDArray[np.float64]:
    """The nearest valid price, at least one tick."""
    p = np.asarray(price, dtype=np.float64)
    step = tick(exchange, p, date)
    return _clean(np.maximum(np.round(p / step), 1) * step)


def ceiling(exchange: Names, reference: Prices, date: dt.date) -> npt.NDArray[np.float64]:
    """The highest valid price of a session, at least one tick above the reference."""
    ref = np.asarray(reference, dtype=np.float64)
    raw = ref * (1 + band(exchange, date))
    step = tick(exchange, raw, date)
    top = np.floor(raw / step * (1 + _EPS)) * step
    return _clean(np.maximum(top, ref + tick(exchange, ref, date)))


def floor(exchange: Names, reference: Prices, date: dt.date) -> npt.NDArray[np.float64]:
    """The lowest valid price of a session, at least one tick below the reference and positive."""
    ref = np.asarray(reference, dtype=np.float64)
    raw = ref * (1 - band(exchange, date))
    step = tick(exchange, raw, date)
    bottom = np.ceil(raw / step * (1 - _EPS)) * step
    below = np.minimum(bottom, ref - tick(exchange, ref, date))
    return _clean(np.maximum(below, tick(exchange, step, date)))
