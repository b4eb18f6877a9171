"""The book, session by session: a cash-only long portfolio that follows target weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.backtest.bars import PRICE_UNIT, Bars, Floats
from vnquant.backtest.orders import amount, fill
from vnquant.backtest.quotes import Quotes, Reason, quotes
from vnquant.backtest.rules import TradingRules
from vnquant.backtest.settlement import LONGEST, lag
from vnquant.errors import DataError, UsageError

CAPITAL = 1e9
"""VND."""

COSTS = ("fee", "tax", "slippage")
WEIGHT_SLACK = 1e-9
LEAST_ORDER = 1e-9  # shares; smaller ones are rounding, not orders


@dataclass(frozen=True)
class Result:
    """What happened. Money in VND, prices in thousand VND, sessions as rows of the bars.

    Attributes:
        rules: that were obeyed.
        orders: one row an order: session, symbol (both as index), date, name, side (1 buy, -1
            sale), ordered, filled (shares, positive), price (paid or received a share), value
            (VND), reason (`Reason` of the largest cut).
        positions: shares held after each session, ``[T, S]``.
        cash: settled and awaited cash after each session, ``[T]``; settled: the spendable part.
        equity: cash and shares at the last known close, ``[T]``.
        costs: VND a session of each of `COSTS`, ``[T]``. The slippage is inside the prices paid.
        traded: VND bought and sold a session, ``[T]``.
    """

    rules: TradingRules
    orders: pd.DataFrame
    positions: Floats
    cash: Floats
    settled: Floats
    equity: Floats
    costs: dict[str, Floats]
    traded: Floats

    @property
    def fills(self) -> pd.DataFrame:
        """Orders of which something was filled."""
        return self.orders[self.orders["filled"] > 0]

    @property
    def unfilled(self) -> pd.DataFrame:
        """Orders with something missing for another reason than rounding to lots."""
        reason = self.orders["reason"]
        return self.orders[(reason != Reason.FILLED) & (reason != Reason.LOT)]


@dataclass
class _Book:
    """``cash`` and ``shares`` may be used now; row i of the other two in i + 1 sessions."""

    cash: float
    shares: Floats
    cash_due: Floats
    shares_due: Floats

    @property
    def held(self) -> Floats:
        return np.asarray(self.shares + self.shares_due.sum(axis=0))

    @property
    def money(self) -> float:
        return self.cash + float(self.cash_due.sum())

    def arrive(self) -> None:
        """A new session: what is due today becomes usable."""
        self.cash += float(self.cash_due[0])
        self.shares = self.shares + self.shares_due[0]
        for due in (self.cash_due, self.shares_due):
            due[:-1] = due[1:]
            due[-1] = 0.0

    def convert(self, factor: Floats, price: Floats, whole: bool) -> None:
        """A corporate action: every share becomes ``factor`` shares worth ``price``.

        In whole numbers the fractions are paid out at that price, so that nothing is lost.
        """
        moved = (factor != 1.0) & (self.held > 0)
        if not moved.any():
            return
        f = np.where(moved, factor, 1.0)
        before = self.held * f
        self.shares, self.shares_due = self.shares * f, self.shares_due * f
        if whole:
            self.shares = np.where(moved, _floor(self.shares), self.shares)
            self.shares_due = np.where(moved, _floor(self.shares_due), self.shares_due)
            self.cash += amount(before - self.held, price)


def _floor(shares: Floats) -> Floats:
    floored: Floats = np.floor(shares * (1 + 1e-12))
    return floored


def simulate(
    bars: Bars, targets: Floats, rules: TradingRules | None = None, *, capital: float = CAPITAL
) -> Result:
    """Follow target weights through the bars.

    Row t of the targets is decided at the close of t. Orders are the difference between the
    shares that the weight of that close's equity would buy at that close, and those held; they
    are good for one session, and what is not filled is dropped: repeat the target to try again.

    Args:
        targets: ``[T, S]`` parts of the equity, at least 0, at most 1 a session together. NaN: no
            order in this symbol this session.
        rules: None for all of them.
        capital: VND at the start.

    Raises:
        DataError: targets of another shape, below 0, or above 1 together.
        UsageError: a capital that is not above 0.
    """
    rules = rules or TradingRules()
    _check(bars, targets, capital)
    sessions, symbols = bars.close.shape
    offered = quotes(bars, rules)
    lags = lag(bars.dates, rules.moment)
    book = _Book(capital, np.zeros(symbols), np.zeros(LONGEST), np.zeros((LONGEST, symbols)))
    positions = np.zeros((sessions, symbols))
    cash, settled, equity, traded = (np.zeros(sessions) for _ in range(4))
    costs = {name: np.zeros(sessions) for name in COSTS}
    records: list[tuple[Floats, ...]] = []
    worth = capital  # at the close of the session that decided
    for t in range(sessions):
        quote = offered.session(t)
        book.arrive()
        book.convert(quote.factor, np.nan_to_num(quote.opening), rules.lots)
        if rules.next_session:
            target, at = (targets[t - 1] if t else np.full(symbols, np.nan)), quote.opening
        else:
            target, at = targets[t], quote.closing
            worth = book.money + amount(book.held, np.nan_to_num(at))
        order = _order(target, worth, at, book.held)
        if np.any(np.abs(order) > LEAST_ORDER):
            done, record = _trade(book, order, quote, rules, int(lags[t]))
            for name, value in zip((*COSTS, "traded"), done, strict=True):
                (traded if name == "traded" else costs[name])[t] = value
            records.append((np.full(len(record[0]), float(t)), *record))
        positions[t], cash[t], settled[t] = book.held, book.money, book.cash
        worth = book.money + amount(positions[t], np.nan_to_num(quote.closing))
        equity[t] = worth
    orders = _table(bars, records)
    return Result(rules, orders, positions, cash, settled, equity, costs, traded)


def _order(target: Floats, worth: float, price: Floats, held: Floats) -> Floats:
    known = np.isfinite(target) & np.isfinite(price) & (price > 0)
    # A target in what never traded is an order all the same; it fails with the reason NO_PRICE.
    unit = np.where(np.isfinite(price) & (price > 0), price, 1.0) * PRICE_UNIT
    wanted = np.where(np.isfinite(target), target, 0.0) * worth / unit
    hopeless = np.isfinite(target) & ~known & (target > 0)
    order = np.where(known | hopeless, wanted - held, 0.0)
    return np.where(np.abs(order) > LEAST_ORDER, order, 0.0)


def _trade(
    book: _Book, order: Floats, quote: Quotes, rules: TradingRules, lag: int
) -> tuple[tuple[float, ...], tuple[Floats, ...]]:
    done = fill(order, book.held, book.shares, book.cash, quote, rules)
    bought, sold = np.maximum(done.shares, 0.0), np.maximum(-done.shares, 0.0)
    paid, got = amount(bought, quote.buy), amount(sold, quote.sell)
    fee, tax = rules.fee * (paid + got), rules.sale_tax * got
    slippage = amount(bought, quote.buy - quote.price) + amount(sold, quote.price - quote.sell)
    income, spent = got - rules.fee * got - tax, paid * (1 + rules.fee)
    if rules.settle_shares:
        book.shares_due[lag - 1] += bought
        book.shares = np.maximum(book.shares - sold, 0.0)
    else:
        # Nothing is ever due then.
        book.shares = np.maximum(book.shares - sold, 0.0) + bought
    if rules.settle_cash:
        book.cash_due[lag - 1] += income
        book.cash -= spent
    else:
        book.cash += income - spent
    # Orders of exactly all the cash may miss it by the last digit.
    book.cash = max(book.cash, 0.0)
    asked = np.flatnonzero(order)
    side = np.sign(order[asked])
    filled = np.abs(done.shares[asked])
    price = np.where(side > 0, quote.buy[asked], quote.sell[asked])
    value = np.where(filled > 0, filled * price, 0.0) * PRICE_UNIT
    ordered = np.abs(order[asked])
    reason = done.reason[asked].astype(np.float64)
    record = (asked.astype(np.float64), side, ordered, filled, price, value, reason)
    return (fee, tax, slippage, paid + got), record


_FIELDS = ("session", "symbol", "side", "ordered", "filled", "price", "value", "reason")


def _table(bars: Bars, records: list[tuple[Floats, ...]]) -> pd.DataFrame:
    columns: list[Floats] = [np.concatenate(parts) for parts in zip(*records, strict=True)] or [
        np.zeros(0)
    ] * len(_FIELDS)
    table = pd.DataFrame(dict(zip(_FIELDS, columns, strict=True)))
    for name in ("session", "symbol", "side", "reason"):
        table[name] = table[name].astype(np.int64)
    table.insert(2, "date", bars.dates[table["session"].to_numpy()].astype("datetime64[s]"))
    table.insert(3, "name", np.array(bars.symbols, dtype=object)[table["symbol"].to_numpy()])
    return table


def _check(bars: Bars, targets: npt.NDArray[np.float64], capital: float) -> None:
    if targets.shape != bars.close.shape:
        raise DataError(
            f"have shape {targets.shape}, not {bars.close.shape}",
            where="target weights",
            fix="give one row a session and one column a symbol of the bars",
        )
    total = np.nansum(targets, axis=1)
    if (targets < 0).any() or np.isinf(targets).any() or (total > 1 + WEIGHT_SLACK).any():
        worst = int(np.argmax(total))
        raise DataError(
            f"must be at least 0 and at most 1 a session together; {total[worst]:.6g} on "
            f"{bars.dates[worst]}",
            where="target weights",
            fix="the book is long and has no credit: scale the weights down",
        )
    if not capital > 0:
        raise UsageError(f"{capital!r} is not above 0", where="capital", fix="give VND")
