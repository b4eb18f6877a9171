"""The embedded default: a seeded simulator of a Vietnamese market. Not real prices.

Common, sector and own shocks with clustered volatility move each share inside its exchange's
daily band, on its ticks, in its lots; there are suspensions, sessions without a match, bonus
issues, splits and cash dividends, and an adj_close as a vendor would publish it.

One weak signal is planted. A hidden pressure x, an autoregression with persistence 0.97, tilts
each session's expected return by `SIGNAL` of its volatility, and shows itself beforehand, under
noise, in where the close lies within the session's range and in relative volume. A forecaster that
knew x exactly would call about 64 % of five-session directions; tests/market/test_synthetic.py
checks that a ridge on visible bars finds part of it, and nothing once SIGNAL is 0.

A symbol's bars depend on (seed, symbol) and the common shocks on seed alone: asking for three
symbols or for all 102 gives the same bars.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.market import rules, sessions
from vnquant.market.schema import COLUMNS, check
from vnquant.market.universe import VN102, check_known

FIRST = dt.date(2016, 1, 4)
LAST = dt.date(2023, 12, 29)
SIGNAL = 0.20
PERSISTENCE = 0.97
SECTORS = 8

Array = npt.NDArray[np.float64]


def _generator(seed: int, name: str) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(f"market/{seed}/{name}".encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def _autoregression(shocks: Array, persistence: float) -> Array:
    """Unit-variance AR(1) along the first axis."""
    out = np.empty_like(shocks)
    out[0] = shocks[0]
    scale = np.sqrt(1.0 - persistence**2)
    for t in range(1, len(shocks)):
        out[t] = persistence * out[t - 1] + scale * shocks[t]
    return out


@dataclass(frozen=True)
class _Draws:
    """Everything random, ``[T, S]``, drawn before the sequential part."""

    move: Array
    width: Array
    place: Array
    opening: Array
    volume: Array
    ratio: Array
    """Ex-date factor on the reference price; 1 on ordinary days."""
    dividend: Array
    """Cash paid per unit of price at an ex-date."""
    absent: npt.NDArray[np.bool_]
    unmatched: npt.NDArray[np.bool_]
    start: Array


class SyntheticMarket:
    """Simulated bars of the 102 symbols of `vnquant.market.universe.VN102`.

    Args:
        seed: of the whole market.
        signal: size of the planted drift, in daily volatilities per unit of pressure.
    """

    name = "synthetic"

    def __init__(self, seed: int = 0, signal: float = SIGNAL) -> None:
        self.seed, self.signal = seed, signal

    def known_symbols(self) -> Mapping[str, str]:
        return VN102

    def load(
        self, symbols: Sequence[str] | None, *, start: dt.date | None, end: dt.date | None
    ) -> pd.DataFrame:
        names = sorted(VN102 if symbols is None else symbols)
        check_known(names, VN102)
        days = sessions.between(np.datetime64(FIRST), np.datetime64(LAST))
        raw = self._bars(names, days)
        if start is not None:
            raw = raw[raw["date"] >= pd.Timestamp(start)]
        if end is not None:
            raw = raw[raw["date"] <= pd.Timestamp(end)]
        return check(raw.reset_index(drop=True), where="synthetic market")

    def _draws(self, names: list[str], count: int) -> _Draws:
        common = _generator(self.seed, "common")
        calm = np.exp(0.35 * _autoregression(common.standard_normal((count, 1)), 0.98))
        market = calm * common.standard_normal((count, 1))
        sectors = common.standard_normal((count, SECTORS))
        columns: dict[str, list[Array]] = {}
        for name in names:
            for key, value in self._own(name, count, market[:, 0], sectors).items():
                columns.setdefault(key, []).append(value)
        stacked = {k: np.stack(v, axis=-1) for k, v in columns.items()}
        return _Draws(**stacked)  # type: ignore[arg-type]

    def _own(self, name: str, count: int, market: Array, sectors: Array) -> dict[str, Array]:
        """One symbol's draws, each ``[T]``."""
        g = _generator(self.seed, f"symbol/{name}")
        sector = sectors[:, g.integers(SECTORS)]
        level = g.uniform(0.013, 0.020)
        shocks = g.standard_normal((count, 2))
        pressure = _autoregression(shocks[:, :1], PERSISTENCE)[:, 0]
        volatility = level * np.exp(0.30 * _autoregression(shocks[:, 1:], 0.95)[:, 0])
        noise = 0.55 * market + 0.35 * sector + 0.76 * g.standard_normal(count)
        before = np.concatenate([[0.0], pressure[:-1]])
        absent = np.zeros(count, dtype=bool)
        for begin in np.flatnonzero(g.random(count) < 1 / 700):
            absent[begin : begin + int(g.integers(2, 15))] = True
        action = g.random(count)
        split = action < 1 / 500
        return {
            "move": volatility * (self.signal * before + noise),
            "width": volatility * (0.8 + np.abs(g.standard_normal(count))),
            "place": 1.0 / (1.0 + np.exp(-(1.1 * pressure + 0.9 * g.standard_normal(count)))),
            "opening": g.uniform(0.1, 0.9, count),
            "volume": g.uniform(11.5, 15.0) + 0.35 * pressure + 0.5 * g.standard_normal(count),
            "ratio": np.where(split, 1.0 / g.choice([1.1, 1.2, 1.5, 2.0], count), 1.0),
            "dividend": np.where(action > 1 - 1 / 260, g.uniform(0.01, 0.05, count), 0.0),
            "absent": absent,
            "unmatched": g.random(count) < 0.003,
            "start": np.array(g.uniform(12.0, 70.0)),
        }

    def _bars(self, names: list[str], days: npt.NDArray[np.datetime64]) -> pd.DataFrame:
        exchange = np.array([VN102[n] for n in names])
        d = self._draws(names, len(days))
        shape = (len(days), len(names))
        o, h, low, c, reference = (np.empty(shape) for _ in range(5))
        close = rules.round_to_tick(exchange, d.start, days[0].astype(object))
        average = close
        for t, day in enumerate(days.astype(object)):
            # UPCOM takes yesterday's average price as reference, the others yesterday's close.
            base = np.where(exchange == "UPCOM", average, close) * d.ratio[t] * (1 - d.dividend[t])
            base = rules.round_to_tick(exchange, base, day)
            top, bottom = rules.ceiling(exchange, base, day), rules.floor(exchange, base, day)

            def price(value: Array, day: dt.date = day, top: Array = top, bottom: Array = bottom) -> Array:
                return np.clip(rules.round_to_tick(exchange, value, day), bottom, top)

            frozen = d.absent[t] | d.unmatched[t]
            today = price(base * np.exp(d.move[t]))
            spread = d.width[t] * base
            high = np.maximum(price(today + (1 - d.place[t]) * spread), today)
            lowest = np.minimum(price(today - d.place[t] * spread), today)
            opening = np.clip(price(lowest + d.opening[t] * (high - lowest)), lowest, high)
            reference[t] = base
            c[t] = np.where(frozen, base, today)
            o[t], h[t] = np.where(frozen, base, opening), np.where(frozen, base, high)
            low[t] = np.where(frozen, base, lowest)
            close = c[t]
            average = (o[t] + h[t] + low[t] + c[t]) / 4
        return self._frame(names, exchange, days, d, (o, h, low, c, reference))

    def _frame(
        self,
        names: list[str],
        exchange: npt.NDArray[np.str_],
        days: npt.NDArray[np.datetime64],
        d: _Draws,
        prices: tuple[Array, Array, Array, Array, Array],
    ) -> pd.DataFrame:
        o, h, low, c, reference = prices
        lots = np.where(days[:, None] < np.datetime64(rules.HOSE_LOT_CHANGE), 10.0, 100.0)
        lots = np.where(exchange == "HOSE", lots, 100.0)
        volume = np.where(d.unmatched, 0.0, np.maximum(np.round(np.exp(d.volume) / lots), 1) * lots)
        # A vendor scales the past by every later action; that is what adj_close must look like.
        factor = d.ratio * (1 - d.dividend)
        later = np.cumprod(factor[::-1], axis=0)[::-1]
        later = np.concatenate([later[1:], np.ones((1, len(names)))])
        change = np.round(c - reference, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = np.round(change / reference * 100, 2)
        keep = ~d.absent.T.ravel()

        def flat(values: Array) -> Array:
            return values.T.ravel()[keep]

        texts = [f"{x:g}({p:.2f} %)" for x, p in zip(flat(change), flat(percent), strict=True)]
        columns = {
            "symbol": np.repeat(names, len(days))[keep],
            "exchange": np.repeat(exchange, len(days))[keep],
            "date": np.tile(days.astype("datetime64[s]"), len(names))[keep],
            "open": flat(o),
            "high": flat(h),
            "low": flat(low),
            "close": flat(c),
            "adj_close": np.round(flat(c * later), 2),
            "volume": flat(volume),
            "value": np.round(flat(volume * (o + h + low + c) / 4 * 1000.0)),
            "change_text": texts,
        }
        frame = pd.DataFrame({k: columns[k] for k in COLUMNS})
        return frame.astype({"symbol": "str", "exchange": "str", "change_text": "str"})
