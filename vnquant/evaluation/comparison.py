"""Two sets of forecasts on the same rows: is one better, or was it lucky on these dates?

Paired circular block bootstrap over dates: both sets are judged on the same resampled dates, so
what moves both (a crash, a quiet month) cancels, and only their difference varies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.errors import DataError
from vnquant.evaluation.correlation import correlation_series
from vnquant.evaluation.intervals import (
    block_length,
    percentile_interval,
    resampled_sums,
    two_sided_p,
)
from vnquant.evaluation.metrics import FLAT, horizon_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` of one figure; interval and p-value None for too few dates."""

    first: float
    second: float
    difference: float
    interval: list[float] | None
    p_value: float | None


def paired(
    first: Floats,
    second: Floats,
    weight: Floats,
    horizon: int,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference | None:
    """Difference of two weighted means of per-date sums; None without weight.

    Args:
        first, second: sums by date in time order, ``[D]``. weight: rows behind each, ``[D]``.
        horizon: H; the block is `vnquant.evaluation.intervals.block_length`.

    The p-value is of "both are equal": twice the bootstrap's share on the other side of 0.
    """
    total = float(weight.sum())
    if total <= 0:
        return None
    a, b = float(first.sum() / total), float(second.sum() / total)
    block = block_length(len(weight), horizon)
    sums = resampled_sums(np.column_stack([first - second, weight]), block, samples, seed)
    if sums is None:
        return Difference(a, b, a - b, None, None)
    drawn = np.divide(sums[:, 0], sums[:, 1], out=np.full(samples, a - b), where=sums[:, 1] > 0)
    return Difference(a, b, a - b, percentile_interval(drawn, level), two_sided_p(drawn))


def compare_forecasts(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference | None]:
    """Accuracy, mae_sum, mse_sum, brier, ic and rank_ic of two forecast tables, paired by date.

    Args:
        first, second: tables of the same (symbol, date) rows in any order; columns as for
            `vnquant.evaluation.metrics.summarise`. Different horizons or rows are refused: who
            drops hard dates looks better.

    Raises:
        DataError: horizons, rows or realised returns differ.
    """
    horizon = horizon_of(first)
    a, b = (t.sort_values(["date", "symbol"], ignore_index=True) for t in (first, second))
    if horizon_of(second) != horizon or len(a) != len(b):
        raise _different(f"{len(a)} and {len(b)} rows, horizons {horizon}, {horizon_of(second)}")
    if not (a[["symbol", "date"]].astype(str) == b[["symbol", "date"]].astype(str)).all(axis=None):
        raise _different("not the same symbols on the same dates")
    steps = range(1, horizon + 1)
    outcome = [f"y_{i}" for i in steps]
    if not np.allclose(a[outcome], b[outcome], rtol=0, atol=1e-6):
        raise _different("not the same realised returns")
    realised = a[outcome].to_numpy(np.float64).sum(axis=1)
    day = np.unique(a["date"].to_numpy(), return_inverse=True)[1].astype(np.int64)
    n = np.bincount(day).astype(np.float64)
    up = realised > FLAT

    def judged(table: pd.DataFrame) -> dict[str, Floats]:
        total = table[[f"mu_{i}" for i in steps]].to_numpy(np.float64).sum(axis=1)
        p = table["p_up"].to_numpy(np.float64)
        rows = {
            "accuracy": ((p > 0.5) == up).astype(np.float64),
            "mae_sum": np.abs(total - realised),
            "mse_sum": (total - realised) ** 2,
            "brier": (p - up) ** 2,
        }
        by_date = {k: np.bincount(day, weights=v).astype(np.float64) for k, v in rows.items()}
        for name, ranked in (("ic", False), ("rank_ic", True)):
            by_date[name] = correlation_series(total, realised, day, ranked=ranked)
        return by_date

    one, two = judged(a), judged(b)
    result: dict[str, Difference | None] = {}
    for name in one:
        x, y, weight = one[name], two[name], n
        if name in ("ic", "rank_ic"):
            both = np.isfinite(x) & np.isfinite(y)
            weight = both.astype(np.float64)
            x, y = np.where(both, x, 0.0), np.where(both, y, 0.0)
        result[name] = paired(x, y, weight, horizon, samples=samples, level=level, seed=seed)
    return result


def _different(what: str) -> DataError:
    return DataError(
        what, where="forecast tables", fix="judge both on the same rows and the same targets"
    )
