"""Raw daily bars as arrays ``[T, S]``: sessions by symbols, NaN where a symbol has no bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.errors import DataError
from vnquant.market.adjustment import factor_step

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
Dates = npt.NDArray[np.datetime64]

PRICE_UNIT = 1000.0
"""VND in a unit of price: prices are in thousand VND, all money in VND."""

ARRAYS = ("open", "high", "low", "close", "volume", "value", "factor")


@dataclass(frozen=True)
class Bars:
    """T sessions of S symbols.

    Attributes:
        dates: datetime64[D] ``[T]``, rising. symbols: ``[S]``.
        exchange: ``[T, S]`` names, so that a share may change its venue.
        open, high, low, close: raw, thousand VND, ``[T, S]``, NaN without a bar.
        volume: order-matched shares. value: order-matched VND, NaN where unknown.
        factor: shares after the session's corporate action for one share before it, counted from
            the symbol's bar before: 2.0 on the ex-date of a 2:1 split, ``close / (close - d)`` on
            that of a dividend d; 1 on all other days and without a bar.
    """

    dates: Dates
    symbols: tuple[str, ...]
    exchange: Names
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    value: Floats
    factor: Floats

    def __post_init__(self) -> None:
        shape = (len(self.dates), len(self.symbols))
        for name in (*ARRAYS, "exchange"):
            found = getattr(self, name).shape
            if found != shape:
                raise DataError(
                    f"{name} has shape {found}, not {shape}",
                    where="bars",
                    fix="give every array one row a session and one column a symbol",
                )
        if not (np.diff(self.dates.astype("datetime64[D]")) > np.timedelta64(0, "D")).all():
            raise DataError("the sessions do not rise", where="bars", fix="sort them, each once")
        if not (np.isfinite(self.factor) & (self.factor > 0)).all():
            raise DataError(
                "a factor is not a positive number",
                where="bars",
                fix="use 1 where there was no corporate action",
            )

    @property
    def has_bar(self) -> Mask:
        """Whether there is a usable close, ``[T, S]``."""
        return np.isfinite(self.close) & (self.close > 0)

    @property
    def average(self) -> Floats:
        """Volume-weighted average price ``[T, S]``, thousand VND: value / volume, else NaN.

        NaN as well where the quotient lies more than `AVERAGE_SLACK` outside the bar's range:
        value is rounded to millions in some years, and some early units are wrong.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.value / self.volume / PRICE_UNIT
            fine = (mean >= self.low * (1 - AVERAGE_SLACK)) & (
                mean <= self.high * (1 + AVERAGE_SLACK)
            )
        return np.where(fine & (self.volume > 0) & (self.value > 0), mean, np.nan)


AVERAGE_SLACK = 0.02
"""Since 2016, 99.6 % of traded UPCOM bars of the shared prices pass."""


def from_raw(raw: pd.DataFrame, dates: Dates, symbols: Sequence[str]) -> Bars:
    """Spread raw bars over sessions and symbols.

    Bars on other dates are dropped; what happened on them to the number of shares is not: every
    factor is the step of adj_close / close from the last bar kept to this one.

    Args:
        raw: columns of `vnquant.market.schema.COLUMNS`, sorted by symbol and date.
        dates: the sessions, datetime64[D], rising.
        symbols: the columns of the result, in this order.

    Raises:
        DataError: a symbol has no bar on these dates.
    """
    days = raw["date"].to_numpy().astype("datetime64[D]")
    names = raw["symbol"].to_numpy(dtype=str)
    kept = raw[np.isin(days, dates) & np.isin(names, symbols)]
    missing = sorted(set(symbols) - set(kept["symbol"]))
    if missing:
        raise DataError(
            f"no bar of {', '.join(missing[:5])} on these {len(dates)} sessions",
            where="bars",
            fix="leave the symbol out, or give other dates",
        )
    column = {s: i for i, s in enumerate(symbols)}
    row = np.searchsorted(dates, kept["date"].to_numpy().astype("datetime64[D]"))
    col = np.array([column[s] for s in kept["symbol"]], dtype=np.int64)
    close, adjusted = (kept[n].to_numpy(np.float64) for n in ("close", "adj_close"))
    first = ~kept["symbol"].duplicated().to_numpy(bool)
    step = factor_step(close, adjusted, first)
    flat = {n: kept[n].to_numpy(np.float64, na_value=np.nan) for n in ARRAYS if n != "factor"}

    def spread(values: Floats, rest: float) -> Floats:
        out = np.full((len(dates), len(symbols)), rest)
        out[row, col] = values
        return out

    venue = dict(zip(kept["symbol"], kept["exchange"], strict=True))
    return Bars(
        dates=dates,
        symbols=tuple(symbols),
        exchange=np.tile(np.array([str(venue[s]) for s in symbols]), (len(dates), 1)),
        factor=spread(np.where(np.isfinite(step) & (step > 0), step, 1.0), 1.0),
        **{name: spread(values, np.nan) for name, values in flat.items()},
    )


def last_known(values: Floats) -> Floats:
    """Each column's last finite value up to and including the row, ``[T, S]``; NaN before any."""
    rows = np.arange(len(values))[:, None]
    at = np.maximum.accumulate(np.where(np.isfinite(values), rows, -1), axis=0)
    found = np.take_along_axis(values, np.maximum(at, 0), axis=0)
    return np.where(at >= 0, found, np.nan)


def before(values: Floats) -> Floats:
    """The row before, ``[T, S]``; NaN in the first."""
    return np.concatenate([np.full((1, values.shape[1]), np.nan), values[:-1]])


def carried(values: Floats, factor: Floats) -> Floats:
    """A price's last known level before the session, in today's shares, ``[T, S]``.

    ``values[u] * factor[u+1..t]`` divides out of the price what happened to the shares since u.
    """
    level = np.cumprod(factor, axis=0)
    return before(last_known(values * level)) / level
