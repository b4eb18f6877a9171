"""Prices in which there is nothing to find: real returns in another order, on bars that look real.

The sessions are cut into blocks and the blocks put into a random order; every share and the index
follow the same order, so that what moves together still does, as far as their histories overlap.
With blocks of one session the order is lost altogether; longer blocks keep the clusters of
volatility, and with them whatever dependence there is within so many sessions. A share's returns
are permuted, never drawn again: its drift and its distribution stay.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.market import rules
from vnquant.market.folder import INDEX
from vnquant.market.quality import inspect
from vnquant.market.schema import COLUMNS
from vnquant.market.sessions import sessions

Array = npt.NDArray[np.float64]
Dates = npt.NDArray[np.datetime64]
Rows = npt.NDArray[np.int64]

LEAST_PRICE = 20.0
"""Thousand VND that a path has at its lowest, but for rounding: a tick of 0.1 is 0.5 % of it."""
MOST_MEDIAN = 500.0
"""Thousand VND that a path's median has at most, even if its lowest is lower then: what is far
above is taken for a file in VND (`vnquant.market.schema`)."""


def shuffled(
    raw: pd.DataFrame,
    levels: pd.DataFrame | None = None,
    *,
    block: int,
    seed: int,
    carry: float = 0.0,
    max_gap: int = 10,
) -> pd.DataFrame:
    """Bars of a source with their returns in another order, ready to be written as a price file.

    A bar's return, its open, high and low relative to its close, and its volume move together.
    Bars stay on the dates on which the share had a sound bar; prices are on ticks and within the
    band around the close before, so that a move beyond it (from another venue's days) is cut off.
    There are no corporate actions: adj_close is close.

    Args:
        raw: bars as `vnquant.market.sources.PriceSource.load` gives them.
        levels: date and close of VNINDEX (`vnquant.market.index.index_levels`); None: none.
        block: sessions that stay together, at least 1.
        seed: of the order.
        carry: correlation planted between the returns of one session and the next, below 1. 0:
            nothing can be forecast. Above 0 something can: the check that a judge does not refuse
            everything.
        max_gap: as in `vnquant.market.quality.inspect`.

    Returns:
        The columns of `vnquant.market.schema.COLUMNS`; the index has the exchange INDEX.

    Raises:
        DataError: the bars cannot be used at all.
    """
    calendar = sessions(raw)
    clean = inspect(raw, calendar, max_gap=max_gap).clean
    rng = np.random.default_rng(seed)
    order = block_order(len(calendar), block, rng)
    place = np.searchsorted(calendar, clean["date"].to_numpy().astype("datetime64[D]"))
    names, owner = np.unique(clean["symbol"].to_numpy(str), return_inverse=True)
    source = np.empty(len(clean), dtype=np.int64)
    for i in range(len(names)):
        rows = np.flatnonzero(owner == i)
        source[rows] = rows[follow(order, place[rows], rng)]
    steps = carried(_steps(clean)[source], owner, carry)
    bars = _bars(clean, source, steps, place, owner)
    parts = [bars] if levels is None or levels.empty else [bars, _index(levels, calendar, order)]
    found = pd.concat(parts, ignore_index=True)
    return found.sort_values(["symbol", "date"], ignore_index=True)[list(COLUMNS)]


def block_order(count: int, block: int, rng: np.random.Generator) -> Rows:
    """The numbers below ``count`` in blocks that have changed places; the last may be shorter."""
    blocks = [np.arange(b, min(b + block, count)) for b in range(0, count, block)]
    return np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])


def follow(order: Rows, places: Rows, rng: np.random.Generator) -> Rows:
    """Which of its own bars each bar of a share takes its return from, a permutation ``[n]``.

    Args:
        order: `block_order` of the calendar's sessions.
        places: the share's sessions, rising ``[n]``.

    A bar takes that of the session which the order puts here, where the share has one; those left
    over are dealt out at random.
    """
    wanted = order[places]
    at = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
    has = places[at] == wanted
    source = np.where(has, at, 0)
    source[~has] = rng.permutation(np.setdiff1d(np.arange(len(places)), at[has]))
    return source


def carried(steps: Array, owner: Rows, carry: float) -> Array:
    """Returns that repeat in part: each share's mean and variance stay, and its returns of one
    session and the next get a correlation of ``carry``.

    Args:
        steps: log returns ``[N]``, share after share. owner: number of the share ``[N]``.
    """
    if not carry:
        return steps
    mean = pd.Series(steps).groupby(owner).transform("mean").to_numpy(np.float64)
    out = steps - mean
    for row in np.flatnonzero(owner[1:] == owner[:-1]) + 1:
        out[row] = carry * out[row - 1] + np.sqrt(1.0 - carry**2) * out[row]
    planted: Array = mean + out
    return planted


def _steps(clean: pd.DataFrame) -> Array:
    """Log return from the bar before, ``[N]``; 0 where a history or a segment begins."""
    level = np.log(clean["adj_close"].to_numpy(np.float64))
    same = np.ones(len(clean), dtype=bool)
    same[0] = False
    for name in ("symbol", "segment"):
        values = clean[name].to_numpy()
        same[1:] &= values[1:] == values[:-1]
    return np.where(same, level - np.roll(level, 1), 0.0)


def _bars(
    clean: pd.DataFrame, source: Rows, steps: Array, place: Rows, owner: Rows
) -> pd.DataFrame:
    first = np.append(True, owner[1:] != owner[:-1])
    exchange = clean["exchange"].to_numpy(str)
    days = clean["date"].to_numpy().astype("datetime64[D]")
    start = _starts(clean["close"].to_numpy(np.float64)[first], steps, owner)
    close = _walk(start, steps, place, owner, exchange[first], days)
    before = np.where(first, start[owner], np.roll(close, 1))
    low, high = rules.floor(exchange, before, days), rules.ceiling(exchange, before, days)
    bars = pd.DataFrame({k: clean[k].to_numpy() for k in ("symbol", "exchange", "date")})
    at: dict[str, Array] = {}
    for name in ("open", "high", "low"):
        shape = (clean[name] / clean["close"]).to_numpy(np.float64)[source]
        at[name] = np.clip(rules.round_to_tick(exchange, close * shape, days), low, high)
    bars["open"] = at["open"]
    bars["high"] = np.maximum.reduce([at["open"], at["high"], close])
    bars["low"] = np.minimum.reduce([at["open"], at["low"], close])
    bars["close"] = bars["adj_close"] = close
    bars["volume"] = clean["volume"].to_numpy(np.float64)[source]
    # The average price, which is the next reference on UPCOM, is the close.
    bars["value"] = np.round(bars["volume"] * close * 1000.0)
    return bars.assign(change_text=None)


def _starts(first_close: Array, steps: Array, owner: Rows) -> Array:
    """A share's close before its first bar, high enough for the whole path, ``[S]``."""
    path = pd.Series(steps).groupby(owner).cumsum().groupby(owner)
    lowest, middle = (np.exp(part.to_numpy(np.float64)) for part in (path.min(), path.median()))
    start = np.maximum(first_close, LEAST_PRICE / np.minimum(lowest, 1.0))
    start = np.minimum(start, MOST_MEDIAN / middle)
    return np.asarray(np.round(np.maximum(start, 0.1), 1), dtype=np.float64)


def _walk(
    start: Array,
    steps: Array,
    place: Rows,
    owner: Rows,
    exchange: npt.NDArray[np.str_],
    days: Dates,
) -> Array:
    """Closes ``[N]``: from each one the next, on a tick and within the band.

    Rounding the path as a whole would be simpler, but its errors would turn back with the next
    return, and that can be forecast.
    """
    close, last = np.empty(len(steps)), start.copy()
    by_session = np.argsort(place, kind="stable")
    edges = np.flatnonzero(np.diff(place[by_session])) + 1
    for rows in np.split(by_session, edges):
        who, day = owner[rows], days[rows]
        venue, before = exchange[who], last[who]
        price = rules.round_to_tick(venue, before * np.exp(steps[rows]), day)
        low, high = rules.floor(venue, before, day), rules.ceiling(venue, before, day)
        close[rows] = last[who] = np.clip(price, low, high)
    return close


def _index(levels: pd.DataFrame, calendar: Dates, order: Rows) -> pd.DataFrame:
    """VNINDEX along the same order; its sessions outside of the shares' calendar are left out."""
    days = levels["date"].to_numpy().astype("datetime64[D]")
    known = levels[np.isin(days, calendar)]
    place = np.searchsorted(calendar, known["date"].to_numpy().astype("datetime64[D]"))
    close = known["close"].to_numpy(np.float64)
    steps = np.diff(np.log(close), prepend=np.log(close[:1]))
    source = follow(order, place, np.random.default_rng(0))
    level = np.round(close[:1] * np.exp(np.cumsum(steps[source])), 2)
    index = pd.DataFrame({"symbol": "VNINDEX", "exchange": INDEX, "date": known["date"].to_numpy()})
    for name in ("open", "high", "low", "close", "adj_close"):
        index[name] = level
    return index.assign(volume=0.0, value=np.nan, change_text=None)
