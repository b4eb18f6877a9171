"""What an equity curve was worth, alone and beside an index.

Annual figures count 250 sessions a year: Viet Nam had 249.6 on average from 2010 to 2025, not 252.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vnquant.backtest.bars import Bars, Floats
from vnquant.backtest.simulate import COSTS, Result
from vnquant.errors import DataError

SESSIONS_PER_YEAR = 250.0


def returns(equity: Floats, capital: float) -> Floats:
    """Simple return of every session, ``[T]``, the first from the capital."""
    return np.asarray(equity / np.concatenate([[capital], equity[:-1]]) - 1.0)


def sharpe(daily: Floats, sessions_per_year: float = SESSIONS_PER_YEAR) -> float | None:
    """Annual Sharpe ratio over cash at no interest; None without variation or two returns."""
    if len(daily) < 2 or not daily.std(ddof=1) > 1e-15:
        return None
    return float(daily.mean() / daily.std(ddof=1) * math.sqrt(sessions_per_year))


def max_drawdown(equity: Floats, capital: float) -> float:
    """Largest fall from an earlier high, as a positive fraction."""
    curve = np.concatenate([[capital], equity])
    return float((1.0 - curve / np.maximum.accumulate(curve)).max())


def turnover(result: Result, sessions_per_year: float = SESSIONS_PER_YEAR) -> float:
    """Bought and sold a year, as a multiple of the mean equity (in and out of everything: 2)."""
    if not len(result.equity):
        return 0.0
    years = len(result.equity) / sessions_per_year
    return float(result.traded.sum() / result.equity.mean() / years)


def capacity(
    result: Result, bars: Bars, participation: float = 0.1, covered: float = 0.95
) -> float | None:
    """Capital in VND at which ``covered`` of the traded value still fits into the volume.

    Every fill is scaled with the capital; a fill fits while it is at most ``participation`` of
    its session's matched volume. Judge a run without the rule ``participation``, which has already
    cut what does not fit. None without fills.
    """
    fills = result.fills
    if fills.empty:
        return None
    at = fills["session"].to_numpy(), fills["symbol"].to_numpy()
    volume = np.nan_to_num(bars.volume[at])
    with np.errstate(divide="ignore"):
        part = np.where(volume > 0, fills["filled"].to_numpy() / volume, np.inf)
    value = fills["value"].to_numpy()
    order = np.argsort(part)
    reached = np.cumsum(value[order]) >= covered * value.sum() * (1 - 1e-12)
    worst = float(part[order][int(np.argmax(reached))])
    return 0.0 if math.isinf(worst) else float(result.equity.mean() * participation / worst)


def summary(result: Result, bars: Bars, capital: float) -> dict[str, float | None]:
    """Figures of a run, fractions and VND: net_return, annual_return, annual_volatility, sharpe,
    max_drawdown, turnover (a year), invested (mean part in shares), fee, tax, slippage (each as a
    part of the capital), fills and unfilled (orders), capacity."""
    equity, n = result.equity, len(result.equity)
    daily = returns(equity, capital)
    grown = float(equity[-1] / capital) if n else 1.0
    annual = grown ** (SESSIONS_PER_YEAR / n) - 1 if n else 0.0
    deviation = float(daily.std(ddof=1)) if n > 1 else None
    return {
        "net_return": grown - 1.0,
        "annual_return": annual,
        "annual_volatility": (
            None if deviation is None else deviation * math.sqrt(SESSIONS_PER_YEAR)
        ),
        "sharpe": sharpe(daily),
        "max_drawdown": max_drawdown(equity, capital),
        "turnover": turnover(result),
        "invested": float(1.0 - (result.cash / equity).mean()) if n else 0.0,
        **{name: float(result.costs[name].sum() / capital) for name in COSTS},
        "fills": float(len(result.fills)),
        "unfilled": float(len(result.unfilled)),
        "capacity": capacity(result, bars),
    }


@dataclass(frozen=True)
class Benchmark:
    """An index on the sessions of a backtest.

    Attributes:
        level: ``[T]``, points. carried: sessions without a row of the index, on which the last
            level stands (VNINDEX has none on 2018-01-23 and 24, when HOSE was halted).
    """

    level: Floats
    carried: npt.NDArray[np.datetime64]


def align(
    dates: npt.NDArray[np.datetime64], index_dates: npt.NDArray[np.datetime64], close: Floats
) -> Benchmark:
    """Put an index on the sessions; rows of it on other days (stray weekend rows) are ignored.

    Raises:
        DataError: the index begins after the first session, or ends before the last.
    """
    day = index_dates.astype("datetime64[D]")
    order = np.argsort(day, kind="stable")
    day, close = day[order], close[order]
    sound = np.isin(day, dates) & np.isfinite(close) & (close > 0)
    day, close = day[sound], close[sound]
    if not len(day) or day[0] > dates[0] or index_dates.max() < dates[-1]:
        raise DataError(
            f"does not cover the sessions from {dates[0]} to {dates[-1]}",
            where="index",
            fix="give an index with older and newer rows, or fewer sessions",
        )
    at = np.searchsorted(day, dates, side="right") - 1
    return Benchmark(close[at], dates[day[at] != dates])


def against(daily: Floats, benchmark: Benchmark) -> dict[str, float | None]:
    """A curve beside its index, from the second session on: benchmark_return, benchmark_sharpe,
    excess_return (annual mean of the difference), tracking_error, information_ratio, beta,
    correlation."""
    index = benchmark.level[1:] / benchmark.level[:-1] - 1.0
    own = daily[1:]
    gap = own - index
    varies = len(index) > 1 and index.std() > 1e-15
    beta = float(np.cov(own, index)[0, 1] / index.var(ddof=1)) if varies else None
    both = varies and own.std() > 1e-15
    return {
        "benchmark_return": float(benchmark.level[-1] / benchmark.level[0] - 1.0),
        "benchmark_sharpe": sharpe(index),
        "excess_return": float(gap.mean() * SESSIONS_PER_YEAR) if len(gap) else None,
        "tracking_error": (
            float(gap.std(ddof=1) * math.sqrt(SESSIONS_PER_YEAR)) if len(gap) > 1 else None
        ),
        "information_ratio": sharpe(gap),
        "beta": beta,
        "correlation": float(np.corrcoef(own, index)[0, 1]) if both else None,
    }
