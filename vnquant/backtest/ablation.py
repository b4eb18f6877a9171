"""How much of a naive backtest every rule takes away: the same targets, one rule more each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from vnquant.backtest.bars import Bars, Floats
from vnquant.backtest.performance import SESSIONS_PER_YEAR, returns, summary
from vnquant.backtest.rules import NAIVE, TradingRules
from vnquant.backtest.simulate import CAPITAL, simulate

STEPS: Mapping[str, tuple[str, ...]] = {
    "trade in the next session": ("next_session", "price"),
    "suspensions": ("suspensions",),
    "price bands": ("bands",),
    "reference lowered on ex-dates": ("ex_reference",),
    "average as reference": ("average_reference",),
    "lots": ("lots",),
    "participation": ("participation",),
    "settlement of shares": ("settle_shares",),
    "settlement of cash": ("settle_cash",),
    "brokerage": ("fee",),
    "tax on sales": ("sale_tax",),
    "slippage": ("slippage",),
    "ticks": ("ticks",),
}
"""Fields of `TradingRules` by step, in the order in which they are switched on."""


def ladder(full: TradingRules | None = None) -> Iterator[tuple[str, TradingRules]]:
    """Names and rules from `NAIVE` to ``full`` (None: the defaults), one step more each time."""
    full = full or TradingRules()
    rules = NAIVE
    yield "naive", rules
    for name, fields in STEPS.items():
        rules = replace(rules, **{field: getattr(full, field) for field in fields})
        yield name, rules


def ablation(
    bars: Bars, targets: Floats, full: TradingRules | None = None, *, capital: float = CAPITAL
) -> pd.DataFrame:
    """One row a step of `ladder`: the figures of `vnquant.backtest.performance.summary`, with
    ``taken``, the net return that the step took away (negative where it gave), and ``exposed``, the
    mean return a year for each unit of equity that was in shares (None: none was).

    The order matters: a rule shows what it takes from a backtest that obeys those above it. A rule
    that keeps money out of shares gives to a book that loses; ``exposed`` compares books that hold
    different parts in cash as if they held the same.
    """
    rows: list[dict[str, Any]] = []
    for name, rules in ladder(full):
        result = simulate(bars, targets, rules, capital=capital)
        figures = summary(result, bars, capital)
        mean = float(returns(result.equity, capital).mean() * SESSIONS_PER_YEAR)
        held = figures["invested"]
        rows.append({"rule": name, **figures, "exposed": mean / held if held else None})
    table = pd.DataFrame(rows).set_index("rule")
    table["taken"] = -table["net_return"].diff().fillna(0.0)
    return table
