"""One session's orders against one session's quotes: what is filled, and what cut the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vnquant.backtest.bars import PRICE_UNIT, Floats
from vnquant.backtest.quotes import Quotes, Reason
from vnquant.backtest.rules import TradingRules

_DUST = 1e-12  # relative: 300 shares computed as 299.99999999999994 are three lots


@dataclass(frozen=True)
class Filled:
    """``[S]`` each; shares are positive for buys and negative for sales."""

    shares: Floats
    reason: npt.NDArray[np.int8]


def fill(
    order: Floats, held: Floats, settled: Floats, cash: float, quote: Quotes, rules: TradingRules
) -> Filled:
    """Fill a session's orders, sales first.

    All buys reserve their cost when they are placed, as brokers ask for, so one that meets a
    locked ceiling takes its cash from the others all the same; when the reserves exceed the cash,
    every buy is cut by the same factor. For that reason switching on a rule never makes a fill
    of the same orders and the same book larger.

    Args:
        order: shares to buy (above 0) or to sell (below 0).
        held, settled: shares of the book, and those of them that may be sold.
        cash: VND that may be spent before the session's own sales.
    """
    cuts = np.zeros((len(Reason), len(order)))

    def cut(left: Floats, to: Floats, reason: Reason) -> Floats:
        cuts[reason] += left - to
        return to

    def blocked(left: Floats, why: npt.NDArray[np.int8]) -> Floats:
        for reason in np.unique(why[why != Reason.FILLED]):
            left = cut(left, np.where(why == reason, 0.0, left), Reason(reason))
        return left

    wanted = np.minimum(np.maximum(-order, 0.0), held)
    sales = blocked(wanted, quote.no_sale)
    if rules.settle_shares:
        sales = cut(sales, np.minimum(sales, settled), Reason.UNSETTLED)
    sales = cut(sales, np.minimum(sales, quote.most), Reason.PARTICIPATION)
    whole = _whole(sales, quote.lot)
    # Only who sells all sells the odd lot, and only where it is traded.
    last = quote.odd & (sales >= held * (1 - _DUST))
    sales = cut(sales, np.where(last, sales, whole), Reason.LOT)

    spendable = cash
    if not rules.settle_cash:
        spendable += proceeds(sales, quote.sell, rules)
    asked = np.maximum(order, 0.0)
    reserve = amount(asked, np.nan_to_num(quote.reserve)) * (1 + rules.fee)
    share = 1.0 if reserve <= spendable else max(spendable, 0.0) / reserve
    buys = blocked(asked, quote.no_buy)
    buys = cut(buys, buys * share, Reason.CASH)
    buys = cut(buys, np.minimum(buys, quote.most), Reason.PARTICIPATION)
    buys = cut(buys, _whole(buys, quote.lot), Reason.LOT)
    reason = np.where(cuts.max(axis=0) > _DUST * np.abs(order), cuts.argmax(axis=0), Reason.FILLED)
    return Filled(buys - sales, reason.astype(np.int8))


def amount(shares: Floats, price: Floats) -> float:
    """VND, 0 for symbols that nothing was traded of (their price may be NaN)."""
    return float(np.sum(np.where(shares > 0, shares * price, 0.0))) * PRICE_UNIT


def proceeds(sold: Floats, price: Floats, rules: TradingRules) -> float:
    """VND that sales bring after fee and tax."""
    return amount(sold, price) * (1 - rules.fee - rules.sale_tax)


def _whole(shares: Floats, lot: Floats) -> Floats:
    step = np.where(lot > 0, lot, 1.0)
    return np.where(lot > 0, np.floor(shares / step * (1 + _DUST)) * step, shares)
