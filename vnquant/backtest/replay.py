"""A run's forecasts as a book: which shares it would have held, and what that was worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.backtest.ablation import ablation
from vnquant.backtest.bars import Bars, Floats, from_raw
from vnquant.backtest.performance import Benchmark, against, capacity, returns, summary
from vnquant.backtest.portfolio import sleeves, spread, top_k
from vnquant.backtest.quotes import Reason
from vnquant.backtest.rules import NAIVE, TradingRules
from vnquant.backtest.simulate import Result, simulate
from vnquant.spec import BacktestSpec


def rules_of(spec: BacktestSpec) -> TradingRules:
    """All rules of the market, with the spec's costs and limits."""
    return TradingRules(
        price=spec.price,
        fee=spec.fee,
        sale_tax=spec.sale_tax,
        slippage=spec.slippage,
        participation=spec.participation,
    )


@dataclass(frozen=True)
class Replay:
    """The same target weights under all rules and under none.

    Attributes:
        bars: sessions from the first forecast to the last outcome. capital: VND at the start.
        targets: weights ``[T, S]``. real, naive: what came of them.
        rules: the table of `vnquant.backtest.ablation.ablation`.
    """

    bars: Bars
    capital: float
    targets: Floats
    real: Result
    naive: Result
    rules: pd.DataFrame

    @property
    def daily(self) -> Floats:
        """Net simple return of every session, ``[T]``."""
        return returns(self.real.equity, self.capital)


def replay(
    table: pd.DataFrame,
    raw: pd.DataFrame,
    calendar: npt.NDArray[np.datetime64],
    spec: BacktestSpec,
    horizon: int,
) -> Replay:
    """Hold the ``top_k`` highest forecasts of each session for ``horizon`` sessions.

    The forecast of a row is the sum of its daily log returns, known at that session's close. The
    last sessions, which outcomes reach but forecasts do not, sell what is left.

    Args:
        table: columns symbol, date, mu_1..H, one row a forecast.
        raw: bars, thousand VND, columns as for `vnquant.backtest.bars.from_raw`.
        calendar: all sessions, datetime64[D], rising.

    Raises:
        DataError: a symbol of the table has no bar on these sessions.
    """
    days = table["date"].to_numpy().astype("datetime64[D]")
    first = np.searchsorted(calendar, days.min())
    last = np.searchsorted(calendar, days.max()) + horizon
    dates = calendar[first : last + 1]
    symbols = sorted(table["symbol"].unique())
    bars = from_raw(raw, dates, symbols)
    total = table[[f"mu_{h}" for h in range(1, horizon + 1)]].to_numpy(np.float64).sum(axis=1)
    chosen = top_k(
        spread(table, total, dates, symbols), min(spec.top_k, len(symbols)), above=spec.min_expected
    )
    targets = sleeves(chosen, horizon)
    rules = rules_of(spec)
    return Replay(
        bars,
        spec.capital,
        targets,
        simulate(bars, targets, rules, capital=spec.capital),
        simulate(bars, targets, NAIVE, capital=spec.capital),
        ablation(bars, targets, rules, capital=spec.capital),
    )


def figures(of: Replay, benchmark: Benchmark | None) -> dict[str, Any]:
    """``metrics`` and ``naive`` (fields of `vnquant.backtest.performance.summary`), ``benchmark``
    (`vnquant.backtest.performance.against`, None without an index) and ``ablation``, a list of the
    steps, each with the net return it took away and what it left in shares.

    ``capacity`` is judged on orders that no participation limit has cut already.
    """
    unlimited = replace(of.real.rules, participation=None)
    whole = simulate(of.bars, of.targets, unlimited, capital=of.capital)
    part = of.real.rules.participation or 1.0
    shown = ["rule", "net_return", "sharpe", "max_drawdown", "taken", "invested", "exposed"]
    rows = of.rules.reset_index()[shown]
    return {
        "metrics": summary(of.real, of.bars, of.capital)
        | {"capacity": capacity(whole, of.bars, part)},
        "naive": summary(of.naive, of.bars, of.capital),
        "benchmark": None if benchmark is None else against(of.daily, benchmark),
        "ablation": [_plain(r) for r in rows.to_dict(orient="records")],
    }


def curves(of: Replay, benchmark: Benchmark | None) -> pd.DataFrame:
    """date, equity, drawdown (fraction below the high so far, at least 0), naive, benchmark.

    Equity and naive are multiples of the capital; benchmark is 1 on the first session, NaN
    without an index.
    """
    equity = of.real.equity / of.capital
    high = np.maximum.accumulate(np.concatenate([[1.0], equity]))[1:]
    level = np.full(len(equity), np.nan)
    if benchmark is not None:
        level = benchmark.level / benchmark.level[0]
    return pd.DataFrame(
        {
            "date": of.bars.dates.astype("datetime64[s]"),
            "equity": equity,
            "drawdown": 1.0 - equity / high,
            "naive": of.naive.equity / of.capital,
            "benchmark": level,
        }
    )


def fills(of: Replay) -> pd.DataFrame:
    """date, symbol, side (buy or sell), ordered, filled (shares), price (thousand VND), value (VND)
    and reason (what cut the rest, see `vnquant.backtest.quotes.Reason`)."""
    found = of.real.fills
    return pd.DataFrame(
        {
            "date": found["date"].to_numpy(),
            "symbol": found["name"].to_numpy(),
            "side": np.where(found["side"] > 0, "buy", "sell"),
            **{name: found[name].to_numpy() for name in ("ordered", "filled", "price", "value")},
            "reason": [Reason(r).name.lower() for r in found["reason"]],
        }
    )


def to_markdown(content: Mapping[str, Any]) -> str:
    """The content of ``backtest.json`` as a page."""
    shown = {
        "net_return": ("net return", "{:+.2%}"),
        "sharpe": ("Sharpe ratio (a year)", "{:.2f}"),
        "deflated_sharpe": ("deflated Sharpe (probability of skill)", "{:.1%}"),
        "max_drawdown": ("largest drawdown", "{:.2%}"),
        "turnover": ("turnover (times equity a year)", "{:.1f}"),
        "invested": ("invested on average", "{:.1%}"),
        "capacity": ("capacity (VND)", "{:,.0f}"),
        "fills": ("orders filled", "{:.0f}"),
        "unfilled": ("orders cut or unfilled", "{:.0f}"),
    }
    lines = [f"| {t} | {_cell(content['metrics'], k, p)} | {_cell(content['naive'], k, p)} |"
             for k, (t, p) in shown.items()]  # fmt: skip
    index = content["benchmark"]
    beside = (
        "The prices hold no VNINDEX for these sessions."
        if index is None
        else f"VNINDEX: {index['benchmark_return']:+.2%} over the same sessions."
    )
    steps = [
        f"| {r['rule']} | {r['net_return']:+.2%} | {r['taken']:+.2%} | {r['invested']:.1%} "
        f"| {_cell(r, 'exposed', '{:+.2%}')} |"
        for r in content["ablation"]
    ]
    parts = [
        "# Backtest",
        f"{content['sessions']} sessions from {content['first']} to {content['last']}, "
        f"{content['symbols']} symbols, {content['capital']:,.0f} VND.",
        "\n".join(["| | under all rules | naive |", "|---|---:|---:|", *lines]),
        beside,
        "## What each rule takes away",
        "\n".join(
            [
                "| rule | net return | taken | invested | a year per unit invested |",
                "|---|---:|---:|---:|---:|",
                *steps,
            ]
        ),
        "A rule that keeps money out of shares gives to a book that loses: the last column "
        "compares books as if they were invested alike.",
    ]
    return "\n\n".join(parts) + "\n"


def _cell(row: Mapping[str, Any], key: str, pattern: str) -> str:
    return "-" if row.get(key) is None else pattern.format(row[key])


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): None if pd.isna(v) else v for k, v in row.items()}
