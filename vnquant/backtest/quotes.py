"""What every session offers under a set of rules: prices, blocks, volume, lots. All ``[T, S]``."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from vnquant.backtest.bars import Bars, Floats, Mask, carried, last_known
from vnquant.backtest.limits import limits, locked_down, locked_up
from vnquant.backtest.rules import TradingRules
from vnquant.market import rules as market

HOSE_ODD_LOTS_SINCE = dt.date(2022, 9, 12)
"""Odd lots on HOSE's own board (date unconfirmed); HNX and UPCOM trade them beside round lots."""

LEAST_TICKS = 0.5
"""Half of an order is filled one tick worse."""

_DUST = 1e-9


class Reason(IntEnum):
    """What kept an order, or most of what is missing of it, from being filled."""

    FILLED = 0
    NO_PRICE = 1
    """Never traded so far, or the bar has no usable price."""
    SUSPENDED = 2
    """No bar, or no volume."""
    CEILING = 3
    FLOOR = 4
    UNSETTLED = 5
    """The shares have not arrived yet."""
    PARTICIPATION = 6
    CASH = 7
    """Too little settled cash for all buys of the session: each was cut by the same factor."""
    LOT = 8


@dataclass(frozen=True)
class Quotes:
    """``[T, S]``, or ``[S]`` for one session (`session`).

    Attributes:
        price: of the bar, thousand VND; the last close where there is no bar. buy, sell: paid and
            received a share, after ticks and slippage, within the limits.
        reserve: what a buy reserves a share: ``buy`` before it is held to the ceiling.
        no_buy, no_sale: a `Reason`, 0 where trade is possible.
        most: largest number of shares that may be traded; infinite without a limit.
        lot: shares; 0 for any fraction. odd: whether the last odd lot can be sold.
        opening: the last close before the session in the session's shares; NaN before any.
        closing: the last close up to the session; NaN before any.
        factor: shares for one share held the session before.
    """

    price: Floats
    buy: Floats
    sell: Floats
    reserve: Floats
    no_buy: npt.NDArray[np.int8]
    no_sale: npt.NDArray[np.int8]
    most: Floats
    lot: Floats
    odd: Mask
    opening: Floats
    closing: Floats
    factor: Floats

    def session(self, t: int) -> Quotes:
        return Quotes(*(getattr(self, f.name)[t] for f in fields(self)))


def quotes(bars: Bars, rules: TradingRules) -> Quotes:
    """Everything of a session that does not depend on the book."""
    day = np.broadcast_to(bars.dates[:, None], bars.close.shape)
    traded = bars.has_bar & (bars.volume > 0)
    opening = carried(np.where(bars.has_bar, bars.close, np.nan), bars.factor)
    closing = np.where(bars.has_bar, bars.close, opening)
    price = bars.close if rules.moment == "close" else bars.open
    price = np.where(bars.has_bar, price, opening)
    priced = np.isfinite(price) & (price > 0)
    price = np.where(priced, price, np.nan)
    if rules.ticks:
        buy, sell = _off_grid(bars, price, day)
        step = LEAST_TICKS * market.tick(bars.exchange, np.where(priced, price, 1.0), day)
    else:
        buy, sell, step = price, price, np.zeros(price.shape)
    slip = np.maximum(rules.slippage * price, step)
    buy, sell = buy + slip, np.maximum(sell - slip, 0.0)
    reserve = np.where(priced, buy, opening)
    no_buy = np.where(priced, Reason.FILLED, Reason.NO_PRICE)
    no_sale = no_buy
    if rules.bands:
        at = limits(bars, rules)
        # A bar beyond the limits by a tick of rounding trades at its own price, not a better one.
        buy = np.where(priced, np.minimum(buy, np.maximum(at.ceiling, price)), np.nan)
        sell = np.where(priced, np.maximum(sell, np.minimum(at.floor, price)), np.nan)
        no_buy = np.where(locked_up(bars, at, rules.moment), Reason.CEILING, no_buy)
        no_sale = np.where(locked_down(bars, at, rules.moment), Reason.FLOOR, no_sale)
    if rules.suspensions:
        no_buy = np.where(traded, no_buy, Reason.SUSPENDED)
        no_sale = np.where(traded, no_sale, Reason.SUSPENDED)
    part = rules.participation
    volume = np.where(bars.has_bar, np.nan_to_num(bars.volume), 0.0)
    most = np.full(price.shape, np.inf) if part is None else part * volume
    hose = bars.exchange == "HOSE"
    lot = market.lot(bars.exchange, day) if rules.lots else np.zeros(price.shape)
    return Quotes(
        price=price,
        buy=buy,
        sell=sell,
        reserve=reserve,
        no_buy=no_buy.astype(np.int8),
        no_sale=no_sale.astype(np.int8),
        most=most,
        lot=lot,
        odd=~hose | (day >= np.datetime64(HOSE_ODD_LOTS_SINCE)),
        opening=opening,
        closing=last_known(closing),
        factor=bars.factor,
    )


def _off_grid(bars: Bars, price: Floats, day: npt.NDArray[np.datetime64]) -> tuple[Floats, Floats]:
    """The valid price at or above, and at or below, each price."""
    some = np.where(np.isfinite(price), price, 1.0)
    step = market.tick(bars.exchange, some, day)
    up = np.round(np.ceil(some / step * (1 - _DUST)) * step, 2)
    down = np.round(np.floor(some / step * (1 + _DUST)) * step, 2)
    return np.where(np.isfinite(price), up, np.nan), np.where(np.isfinite(price), down, np.nan)
