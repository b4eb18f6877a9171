"""From forecasts to target weights: which symbols, how much of each, for how long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.backtest.bars import Floats, Mask
from vnquant.errors import UsageError

HOLDING = 5
"""Sessions, the horizon of the forecasts."""


def spread(
    table: pd.DataFrame,
    values: pd.Series | npt.NDArray[np.float64],
    dates: npt.NDArray[np.datetime64],
    symbols: Sequence[str],
) -> Floats:
    """Forecasts of a long table (columns symbol and date) as ``[T, S]``, NaN where there is none.

    Rows of other dates or symbols are left out.
    """
    day = table["date"].to_numpy().astype("datetime64[D]")
    column = {s: i for i, s in enumerate(symbols)}
    at = np.array([column.get(s, -1) for s in table["symbol"]], dtype=np.int64)
    row = np.searchsorted(dates, day)
    inside = (at >= 0) & np.isin(day, dates)
    out = np.full((len(dates), len(symbols)), np.nan)
    out[row[inside], at[inside]] = np.asarray(values, dtype=np.float64)[inside]
    return out


def top_k(
    forecasts: Floats, k: int, *, allowed: Mask | None = None, above: float = -np.inf
) -> Floats:
    """``1 / k`` in each of the k highest forecasts of a session, ``[T, S]``.

    Fewer than k candidates leave the rest in cash. Ties go to the symbol that comes first.

    Args:
        forecasts: ``[T, S]``, NaN where there is none.
        allowed: symbols that may be chosen, ``[T, S]``; None for all.
        above: only forecasts higher than this; 0 holds cash when everything is to fall.

    Raises:
        UsageError: k is below 1.
    """
    if k < 1:
        raise UsageError(f"{k} is below 1", where="top_k", fix="choose at least one symbol")
    usable = _usable(forecasts, allowed, above)
    rank = np.argsort(np.argsort(np.where(usable, -forecasts, np.inf), axis=1, kind="stable"))
    return np.where(usable & (rank < k), 1.0 / k, 0.0)


def proportional(forecasts: Floats, *, allowed: Mask | None = None, most: float = 0.1) -> Floats:
    """Weights in proportion to the forecasts above 0, at most ``most`` each, ``[T, S]``.

    What the cap takes away stays in cash.
    """
    rises = np.where(_usable(forecasts, allowed, 0.0), forecasts, 0.0)
    total = rises.sum(axis=1, keepdims=True)
    weights = np.divide(rises, total, out=np.zeros_like(rises), where=total > 0)
    return np.asarray(np.minimum(weights, most))


def sleeves(portfolios: Floats, holding: int = HOLDING) -> Floats:
    """Overlapping portfolios: each session's own part ``1 / holding`` is held for ``holding``
    sessions, ``[T, S]``.

    The mean of the last ``holding`` rows; the first sessions are invested in part only. Parts are
    kept at equal weight: a sleeve that rose is trimmed to its share.

    Raises:
        UsageError: a holding period below 1.
    """
    if holding < 1:
        raise UsageError(f"{holding} is below 1", where="holding", fix="hold at least a session")
    total = np.zeros_like(portfolios)
    for age in range(min(holding, len(portfolios))):
        total[age:] += portfolios[: len(portfolios) - age]
    return np.minimum(total / holding, 1.0)


def _usable(forecasts: Floats, allowed: Mask | None, above: float) -> Mask:
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(forecasts) & (forecasts > above)
    return usable if allowed is None else usable & allowed
