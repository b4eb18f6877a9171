"""Reference price, ceiling and floor of every session, and bars locked at a limit."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from vnquant.backtest.bars import Bars, Floats, Mask, before, carried, last_known
from vnquant.backtest.rules import TradingRules
from vnquant.market import rules as market

HNX_CLOSE_SINCE = dt.date(2012, 4, 1)
"""Until March 2012 the reference of HNX was yesterday's average on 99 % of rows of the shared
prices, from April on 28 %."""

RESUMED_AFTER = 25
"""Sessions without a trade after which a share has the band of a first session (unconfirmed)."""

_CENT = 0.005  # prices are multiples of 0.01; nearer than this is the same price


class Source(IntEnum):
    """Where a reference price comes from."""

    NONE = 0
    """Nothing traded before: no limits."""
    CLOSE = 1
    AVERAGE = 2
    """value / volume of the last session with trade, to the nearest tick. Equals the official
    reference on 91 to 99 % of UPCOM rows of each year since 2018, the close on 25 to 49 %."""
    CLOSE_FOR_AVERAGE = 3
    """The close, because value is missing or contradicts the bar's range."""
    CONTRADICTED = 4
    """The bar traded beyond the limits by more than a tick: the reference (a hidden venue move, an
    unrecorded corporate action) or the bar is wrong, so no limits are applied."""


@dataclass(frozen=True)
class Limits:
    """``[T, S]`` each, prices in thousand VND; without limits NaN, infinity and 0."""

    reference: Floats
    ceiling: Floats
    floor: Floats
    source: npt.NDArray[np.int8]


def averaged(bars: Bars) -> Mask:
    """Where the reference is the previous session's volume-weighted average, ``[T, S]``."""
    early = (bars.dates < np.datetime64(HNX_CLOSE_SINCE))[:, None]
    return np.asarray((bars.exchange == "UPCOM") | ((bars.exchange == "HNX") & early))


def limits(bars: Bars, rules: TradingRules) -> Limits:
    """Limits under ``ex_reference`` and ``average_reference``, whatever ``bands`` says.

    The reference is that of the last session with trade; on an ex-date it is divided by the factor
    and put on a tick.
    """
    traded = bars.has_bar & (bars.volume > 0)
    close = np.where(traded, bars.close, np.nan)
    average = bars.average
    base = np.where(np.isfinite(average), average, close) if rules.average_reference else close
    wants = averaged(bars) & rules.average_reference

    def previous(values: Floats) -> Floats:
        if rules.ex_reference:
            return carried(values, bars.factor)
        return before(last_known(values))

    raw = np.where(wants, previous(base), previous(close))
    known = np.isfinite(raw)
    day = np.broadcast_to(bars.dates[:, None], raw.shape)
    some = np.where(known, raw, 1.0)
    reference = market.round_to_tick(bars.exchange, some, day)
    resumed = _idle(traded) > RESUMED_AFTER

    at = (bars.exchange, reference, day)
    top = np.where(resumed, market.ceiling(*at, first_session=True), market.ceiling(*at))
    bottom = np.where(resumed, market.floor(*at, first_session=True), market.floor(*at))
    step = market.tick(bars.exchange, reference, day)
    with np.errstate(invalid="ignore"):
        beyond = traded & ((bars.high > top + step + _CENT) | (bars.low < bottom - step - _CENT))
    source = np.where(wants, Source.AVERAGE, Source.CLOSE)
    had_average = before(last_known(np.where(traded, np.isfinite(average), np.nan))) == 1
    source = np.where(wants & ~had_average, Source.CLOSE_FOR_AVERAGE, source)
    source = np.where(beyond, Source.CONTRADICTED, source)
    source = np.where(known, source, Source.NONE).astype(np.int8)
    void = ~known | beyond
    return Limits(
        reference=np.where(known, reference, np.nan),
        ceiling=np.where(void, np.inf, top),
        floor=np.where(void, 0.0, bottom),
        source=source,
    )


def _idle(traded: Mask) -> npt.NDArray[np.int64]:
    """Sessions between the last trade before a row and the row; 0 where there was none."""
    rows = np.arange(len(traded))[:, None]
    last = np.maximum.accumulate(np.where(traded, rows, -1), axis=0)
    last = np.concatenate([np.full((1, traded.shape[1]), -1), last[:-1]])
    return np.where(last >= 0, rows - last - 1, 0)


def locked_up(bars: Bars, at: Limits, moment: str) -> Mask:
    """Where a buy finds no seller, ``[T, S]``: the whole bar, or for ``close`` the close, is at
    the ceiling. A bar that opens there and trades lower does sell to whoever bids the ceiling."""
    price = bars.close if moment == "close" else bars.low
    with np.errstate(invalid="ignore"):
        return np.asarray(price > at.ceiling - _CENT)


def locked_down(bars: Bars, at: Limits, moment: str) -> Mask:
    """Where a sale finds no buyer, ``[T, S]``; mirrors `locked_up`."""
    price = bars.close if moment == "close" else bars.high
    with np.errstate(invalid="ignore"):
        return np.asarray(price < at.floor + _CENT)
