"""All features of one segment: an unbroken stretch of one symbol's sessions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.errors import DataError
from vnquant.features.catalogue import FEATURES, SETS
from vnquant.features.formulas import Bars
from vnquant.features.rolling import Array

PRICES = ("adj_open", "adj_high", "adj_low", "adj_close")
COLUMNS = (*PRICES, "volume")

DIGITS = 9
"""Binary mantissas are rounded to this many decimals, see `_rounded`."""


def compute(bars: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Features of one segment's clean bars, in time order.

    Args:
        bars: columns adj_open, adj_high, adj_low, adj_close (any unit) and volume (shares).

    Returns:
        float32 ``[n, 50]`` in the catalogue's order; NaN during each feature's warm-up.

    Raises:
        DataError: a column is missing, a price is not positive or a volume is negative.
    """
    missing = [c for c in COLUMNS if c not in bars.columns]
    if missing:
        raise DataError(
            f"columns {', '.join(missing)} are missing",
            where="clean bars",
            fix="pass bars that vnquant.market.quality has cleaned",
        )
    return compute_arrays(*(bars[c].to_numpy(dtype=np.float64) for c in COLUMNS))


def compute_arrays(
    open_: Array,
    high: Array,
    low: Array,
    close: Array,
    volume: Array,
    index: Array | None = None,
) -> npt.NDArray[np.float32]:
    """`compute` on float64 arrays ``[n]``; with the index's levels, of the set ``v2``."""
    wanted = FEATURES if index is None else SETS["v2"]
    out = np.full((len(close), len(wanted)), np.nan, dtype=np.float32)
    if not len(close):
        return out
    bars = segment_bars(open_, high, low, close, volume, index)
    with np.errstate(divide="ignore", invalid="ignore"):
        for j, feature in enumerate(wanted):
            # A segment that ends inside the warm-up has no value, and TA-Lib refuses it.
            if len(close) > feature.warm_up:
                out[feature.warm_up :, j] = feature.compute(bars)[feature.warm_up :]
    return out


def segment_bars(
    open_: Array,
    high: Array,
    low: Array,
    close: Array,
    volume: Array,
    index: Array | None = None,
) -> Bars:
    """Check one segment and express its prices relative to its first close.

    TA-Lib compares with fixed small numbers in places; relative prices make those comparisons,
    and so every feature, independent of the unit. The first close is known at every session, so
    nothing of the future enters.

    Raises:
        DataError: a price is not positive and finite, or a volume is negative or not finite.
    """
    for name, price in zip(PRICES, (open_, high, low, close), strict=True):
        _refuse(~(np.isfinite(price) & (price > 0)), name, "not a positive number")
    _refuse(~(np.isfinite(volume) & (volume >= 0)), "volume", "not a number of shares")
    return Bars(
        open=_rounded(open_ / close[0]),
        high=_rounded(high / close[0]),
        low=_rounded(low / close[0]),
        close=_rounded(close / close[0]),
        volume=volume,
        index=index,
    )


def _rounded(price: Array) -> Array:
    """Relative precision 1e-9, far below a tick.

    Equal raw prices differ in their last bits once adjusted; without rounding, such ties (two
    equal highs, an unchanged close) would be decided by noise.
    """
    mantissa, exponent = np.frexp(price)
    return np.ldexp(np.round(mantissa, DIGITS), exponent)


def _refuse(bad: npt.NDArray[np.bool_], column: str, why: str) -> None:
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} values are {why}",
            where=f"clean bars, column {column}",
            fix="run the quality checks (stage ingest) before the features",
        )
