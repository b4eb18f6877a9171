"""Small markets to work through by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from vnquant.backtest.bars import Bars
from vnquant.backtest.rules import NAIVE, TradingRules
from vnquant.market.sessions import between

Floats = np.ndarray


def market(
    close: Any,
    *,
    exchange: str | list[str] = "HOSE",
    first: str = "2023-06-05",
    volume: Any = 1e6,
    **given: Any,
) -> Bars:
    """Bars of the closes ``[T]`` or ``[T, S]``: flat at the close unless other arrays are given.

    The value is that of the volume at the close; 2023-06-05 is a Monday before full weeks.
    """
    c = _column(close)
    start = np.datetime64(first)
    dates = between(start, start + np.timedelta64(4 * len(c) + 30, "D"))[: len(c)]
    arrays: dict[str, Floats] = {"open": c, "high": c, "low": c, "close": c}
    arrays["factor"] = np.ones(c.shape)
    arrays["volume"] = np.full(c.shape, volume) if np.isscalar(volume) else _column(volume)
    arrays["value"] = arrays["volume"] * c * 1000
    arrays |= {name: _column(values) for name, values in given.items()}
    for name in ("open", "close"):
        arrays["high"] = np.fmax(arrays["high"], arrays[name])
        arrays["low"] = np.fmin(arrays["low"], arrays[name])
    names = [exchange] * c.shape[1] if isinstance(exchange, str) else exchange
    return Bars(
        dates=dates,
        symbols=tuple("ABCDEFGH"[: c.shape[1]]),
        exchange=np.tile(np.array(names), (len(c), 1)),
        **arrays,
    )


def _column(values: Any) -> Floats:
    v = np.asarray(values, dtype=np.float64)
    return v[:, None] if v.ndim == 1 else v


def only(**rules: Any) -> TradingRules:
    """No rule but trade at the next open and the given ones."""
    return replace(NAIVE, **{"next_session": True, "price": "open", **rules})


def weights(*rows: Any) -> Floats:
    """Targets, a number for one symbol or a list for several; NaN is no order."""
    w = np.array(rows, dtype=np.float64)
    return w[:, None] if w.ndim == 1 else w


NO = float("nan")
