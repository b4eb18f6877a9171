"""Which trading rules a backtest obeys. Each is a switch, to see what it takes away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vnquant.errors import UsageError


@dataclass(frozen=True)
class TradingRules:
    """The rules of the market and of the book; the defaults are all of them.

    Attributes:
        next_session: what is decided at the close of t trades on t + 1. Off: at that very close,
            which is look-ahead; kept to show what it would pretend to earn.
        price: the price traded at on t + 1, ``open`` or ``close``.
        suspensions: no trade without a bar or without volume. Off: at the last known close.
        bands: no buy in a bar that sits at the ceiling from end to end, no sale in one at the
            floor, no price beyond the limits.
        ex_reference: on an ex-date the limits are those of the lowered reference price.
        average_reference: UPCOM (and HNX before April 2012) takes yesterday's volume-weighted
            average as reference. Off: yesterday's close everywhere.
        ticks: prices off the tick table are rounded against the trader, and slippage is at least
            half a tick.
        lots: buys in whole lots; sales too, except of what is left below a lot where odd lots
            trade and the whole position goes.
        settle_shares, settle_cash: bought shares cannot be sold, proceeds cannot be spent, before
            they are settled (`vnquant.backtest.settlement`).
        fee: brokerage on each side, a fraction of the amount.
        sale_tax: on the proceeds of every sale.
        slippage: fraction of the price that every trade is worse than the bar's price.
        participation: largest part of the session's volume; None for no limit.
    """

    next_session: bool = True
    price: Literal["open", "close"] = "open"
    suspensions: bool = True
    bands: bool = True
    ex_reference: bool = True
    average_reference: bool = True
    ticks: bool = True
    lots: bool = True
    settle_shares: bool = True
    settle_cash: bool = True
    fee: float = 0.0015
    sale_tax: float = 0.001
    slippage: float = 0.001
    participation: float | None = 0.1

    def __post_init__(self) -> None:
        for name in ("fee", "sale_tax", "slippage"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 <= value < 1.0):
                raise _unusable(name, value, "from 0 to less than 1")
        if self.participation is not None and not 0.0 < self.participation <= 1.0:
            raise _unusable("participation", self.participation, "above 0 and at most 1, or None")
        if self.price not in ("open", "close"):
            raise _unusable("price", self.price, "open or close")

    @property
    def moment(self) -> Literal["open", "close"]:
        """When in the session trades happen."""
        return self.price if self.next_session else "close"

    @property
    def delay(self) -> int:
        """Sessions from the decision to the trade."""
        return 1 if self.next_session else 0


def _unusable(name: str, value: object, allowed: str) -> UsageError:
    return UsageError(f"{value!r} is not {allowed}", where=f"rule {name}", fix="change it")


NAIVE = TradingRules(
    next_session=False,
    price="close",
    suspensions=False,
    bands=False,
    ex_reference=False,
    average_reference=False,
    ticks=False,
    lots=False,
    settle_shares=False,
    settle_cash=False,
    fee=0.0,
    sale_tax=0.0,
    slippage=0.0,
    participation=None,
)
"""No rule at all: any fraction of a share, at the close the signal was made from, for nothing."""
