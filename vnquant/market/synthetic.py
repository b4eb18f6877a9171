"""A simulated Vietnamese market: the embedded prices of the demo and the tests. None of it is real.

Each share's return is a common market factor, a sector factor and its own noise, all under slowly
changing volatility, with a weak pull of the adjusted price towards a slow trend. Prices then obey
the market's rules: daily bands and ticks of the exchange (UPCOM from yesterday's average price),
round lots, no trade on suspended days, flat bars without volume, HOSE's system fault of January
2018, bonus issues (the raw price drops, adj_close does not) and cash dividends.

The planted signal: a hidden pressure x per share, an autoregression with persistence 0.97 and unit
variance, tilts each session's expected return by `SIGNAL` times its volatility times yesterday's x,
and shows itself, under noise, in where the close lies within the day's range and in relative
volume. tests/market/test_synthetic.py measures it: a per-symbol ridge on four such quantities,
fitted on the first 70 % of the sessions, calls about 56 % of the next five sessions' directions
(56.2, 55.9 and 56.1 % for the seeds 0, 1 and 2), and 51 %, the base rate, once SIGNAL is 0. Real
prices are far less kind.

A symbol's bars depend on (seed, symbol) and the common shocks on seed alone: asking for three
symbols or for all 102 gives the same bars.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.errors import DataError
from vnquant.market import rules, sessions
from vnquant.market.schema import COLUMNS, check
from vnquant.market.universe import VN102, canonical, check_known

FIRST = dt.date(2016, 1, 4)
LAST = dt.date(2023, 12, 29)
SIGNAL = 0.13
"""Expected return per unit of pressure, in daily volatilities."""
PERSISTENCE = 0.97
SECTORS = 8
PULL = 0.0015
"""Fraction of the distance to the trend that a session closes; keeps prices plausible for years."""
TREND = 0.00025
"""Log growth of the trend per session, about 6 % a year."""
BONUS_ABOVE = 18.0
"""Thousand VND: cheaper shares hand out no bonus shares."""

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
    """Log return before the pull, the bands and the ticks."""
    width: Array
    """Height of the day's range, fraction of the price."""
    place: Array
    """Where in the range the close lies, 0..1."""
    opening: Array
    volume: Array
    """Log shares."""
    bonus: Array
    """Factor on the reference price if bonus shares are handed out; 1 on ordinary days."""
    dividend: Array
    """Cash paid at an ex-date, fraction of the price."""
    absent: npt.NDArray[np.bool_]
    unmatched: npt.NDArray[np.bool_]
    start: Array
    """First price, ``[S]``."""


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
        self,
        symbols: Sequence[str] | None = None,
        *,
        start: dt.date | None = None,
        end: dt.date | None = None,
    ) -> pd.DataFrame:
        """Simulated bars of the symbols (None: all 102) between two dates (inclusive).

        Raises:
            UsageError: an unknown symbol.
            DataError: the simulation has no session between the dates.
        """
        names = canonical(list(VN102) if symbols is None else symbols)
        check_known(names, VN102)
        days = sessions.between(np.datetime64(FIRST), np.datetime64(LAST))
        raw = self._bars(names, days)
        begin, end = start or FIRST, end or LAST
        keep = (raw["date"] >= pd.Timestamp(begin)) & (raw["date"] <= pd.Timestamp(end))
        if not keep.any():
            raise DataError(
                f"holds no session from {begin} to {end}",
                where="simulated market",
                fix=f"choose dates between {FIRST} and {LAST}",
            )
        return check(raw[keep].reset_index(drop=True), where="simulated market")

    def _draws(self, names: list[str], count: int) -> _Draws:
        common = _generator(self.seed, "common")
        calm = np.exp(0.35 * _autoregression(common.standard_normal((count, 1)), 0.98))
        market = (calm * common.standard_normal((count, 1)))[:, 0]
        sectors = common.standard_normal((count, SECTORS))
        own = [self._own(name, count, market, sectors) for name in names]
        stacked: dict[str, Any] = {
            f.name: np.stack([o[f.name] for o in own], axis=-1) for f in fields(_Draws)
        }
        return _Draws(**stacked)

    def _own(self, name: str, count: int, market: Array, sectors: Array) -> dict[str, Array]:
        """One symbol's draws, each ``[T]``."""
        g = _generator(self.seed, f"symbol/{name}")
        sector = sectors[:, g.integers(SECTORS)]
        level = g.uniform(0.014, 0.022)
        shocks = g.standard_normal((count, 2))
        pressure = _autoregression(shocks[:, :1], PERSISTENCE)[:, 0]
        volatility = level * np.exp(0.30 * _autoregression(shocks[:, 1:], 0.95)[:, 0])
        noise = 0.50 * market + 0.35 * sector + 0.76 * g.standard_normal(count)
        before = np.concatenate([[0.0], pressure[:-1]])
        absent = np.zeros(count, dtype=bool)
        for begin in np.flatnonzero(g.random(count) < 1 / 700):
            absent[begin : begin + int(g.integers(2, 15))] = True
        action = g.random(count)
        bonus = 1.0 / g.choice([1.1, 1.2, 1.5, 2.0], count)
        return {
            "move": volatility * (self.signal * before + noise),
            "width": volatility * (0.8 + np.abs(g.standard_normal(count))),
            "place": 1.0 / (1.0 + np.exp(-(1.1 * pressure + 0.9 * g.standard_normal(count)))),
            "opening": g.uniform(0.1, 0.9, count),
            "volume": g.uniform(11.5, 15.0) + 0.35 * pressure + 0.5 * g.standard_normal(count),
            "bonus": np.where(action < 1 / 300, bonus, 1.0),
            "dividend": np.where(action > 1 - 1 / 260, g.uniform(0.01, 0.05, count), 0.0),
            "absent": absent,
            "unmatched": g.random(count) < 0.003,
            "start": np.array(g.uniform(12.0, 70.0)),
        }

    def _bars(self, names: list[str], days: npt.NDArray[np.datetime64]) -> pd.DataFrame:
        exchange = np.array([VN102[n] for n in names])
        d = self._draws(names, len(days))
        absent = d.absent | (np.isin(days, sessions.hose_halts())[:, None] & (exchange == "HOSE"))
        o, h, low, c, reference, factor = (np.empty(d.move.shape) for _ in range(6))
        close = rules.round_to_tick(exchange, d.start, days[0])
        average, since = close, np.ones(len(names))
        for t, day in enumerate(days):
            # A corporate action waits for no one: it also happens while a share is suspended.
            bonus = np.where(close > BONUS_ABOVE, d.bonus[t], 1.0)
            factor[t] = bonus * (1 - d.dividend[t])
            # UPCOM takes yesterday's average price as reference, the others yesterday's close.
            base = np.where(exchange == "UPCOM", average, close) * factor[t]
            base = rules.round_to_tick(exchange, base, day)
            since = since * factor[t]
            top, bottom = rules.ceiling(exchange, base, day), rules.floor(exchange, base, day)
            astray = np.log(base / since / d.start) - TREND * t
            spread = d.width[t] * base
            ideal = base * np.exp(d.move[t] - PULL * astray)
            today = np.clip(rules.round_to_tick(exchange, ideal, day), bottom, top)
            above = rules.round_to_tick(exchange, today + (1 - d.place[t]) * spread, day)
            below = rules.round_to_tick(exchange, today - d.place[t] * spread, day)
            high = np.maximum(np.clip(above, bottom, top), today)
            lowest = np.minimum(np.clip(below, bottom, top), today)
            opening = rules.round_to_tick(exchange, lowest + d.opening[t] * (high - lowest), day)
            frozen = absent[t] | d.unmatched[t]
            reference[t] = base
            c[t] = np.where(frozen, base, today)
            o[t] = np.where(frozen, base, np.clip(opening, lowest, high))
            h[t], low[t] = np.where(frozen, base, high), np.where(frozen, base, lowest)
            close = c[t]
            average = (o[t] + h[t] + low[t] + c[t]) / 4
        bars = {"open": o, "high": h, "low": low, "close": c}
        return self._frame(names, exchange, days, d, absent, bars, reference, factor)

    def _frame(
        self,
        names: list[str],
        exchange: npt.NDArray[np.str_],
        days: npt.NDArray[np.datetime64],
        d: _Draws,
        absent: npt.NDArray[np.bool_],
        bars: dict[str, Array],
        reference: Array,
        factor: Array,
    ) -> pd.DataFrame:
        lots = rules.lot(exchange, days[:, None])
        volume = np.where(d.unmatched, 0.0, np.maximum(np.round(np.exp(d.volume) / lots), 1) * lots)
        # A vendor scales the past by every later action; that is what adj_close must look like.
        after = np.concatenate([factor[1:], np.ones((1, len(names)))])
        later = np.cumprod(after[::-1], axis=0)[::-1]
        change = np.round(bars["close"] - reference, 2)
        percent = np.round(change / reference * 100, 2)
        # adj_close keeps four decimals: two would make old prices of much split shares coarse.
        numbers = bars | {
            "adj_close": np.round(bars["close"] * later, 4),
            "volume": volume,
            "value": np.round(volume * np.mean(list(bars.values()), axis=0) * 1000.0),
        }
        keep = ~absent.T.ravel()
        flat = {name: values.T.ravel()[keep] for name, values in numbers.items()}
        moved = zip(change.T.ravel()[keep], percent.T.ravel()[keep], strict=True)
        columns: dict[str, object] = flat | {
            "symbol": np.repeat(names, len(days))[keep],
            "exchange": np.repeat(exchange, len(days))[keep],
            "date": np.tile(days.astype("datetime64[s]"), len(names))[keep],
            "change_text": [f"{x:g}({p:.2f} %)" for x, p in moved],
        }
        frame = pd.DataFrame({name: columns[name] for name in COLUMNS})
        return frame.astype({"symbol": "str", "exchange": "str", "change_text": "str"})
