"""Small clean bars made here, so that the features are tested without the market package."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from vnquant.features.panel import Panel, build_panel
from vnquant.spec import WindowSpec

MakeBars = Callable[..., pd.DataFrame]
MakePanel = Callable[..., Panel]

LOCKED = (0.06, 0.90)  # share of limit-locked sessions begins after, share of quiet ones


def bars(
    n: int,
    *,
    seed: int = 0,
    symbol: str = "AAA",
    start: str = "2015-01-05",
    breaks: Sequence[int] = (),
) -> pd.DataFrame:
    """``n`` sessions of clean bars: ticks of 0.05, some limit-locked sessions, some unchanged
    closes, one split half-way (raw halves, adjusted does not), a new segment at each break."""
    rng = np.random.default_rng(seed)
    kind = rng.random(n)
    step = np.where(kind < LOCKED[0], 0.069, rng.normal(0.0, 0.02, n))
    step = np.where(kind > LOCKED[1], 0.0, step)
    close = np.maximum(np.round(20.0 * np.exp(np.cumsum(step)) / 0.05) * 0.05, 0.05)
    open_ = np.round(close * np.exp(rng.normal(0.0, 0.01, n)) / 0.05) * 0.05
    open_ = np.maximum(np.where(kind < LOCKED[0], close, open_), 0.05)
    wick = np.where(kind < LOCKED[0], 0.0, 0.05 * rng.integers(0, 6, n))
    high = np.maximum(open_, close) + wick
    low = np.maximum(np.minimum(open_, close) - wick[::-1] * (wick > 0), 0.05)
    volume = np.round(np.exp(rng.normal(11.0, 0.8, n)) / 100.0) * 100.0 + 100.0
    raw = np.where(np.arange(n) < n // 2, 2.0, 1.0)
    frame = pd.DataFrame(
        {
            "symbol": symbol,
            "exchange": "HOSE",
            "date": pd.bdate_range(start, periods=n).astype("datetime64[s]"),
            "open": open_ * raw,
            "high": high * raw,
            "low": low * raw,
            "close": close * raw,
            "adj_open": open_,
            "adj_high": high,
            "adj_low": low,
            "adj_close": close,
            "volume": volume,
            "value": np.where(rng.random(n) < 0.1, np.nan, close * raw * volume * 1000.0),
        }
    )
    frame["segment"] = np.searchsorted(np.sort(breaks), np.arange(n), side="right").astype(np.int32)
    frame["false_step"] = False
    return frame


@pytest.fixture(scope="session")
def make_bars() -> MakeBars:
    return bars


@pytest.fixture(scope="session")
def make_panel() -> MakePanel:
    """A panel of several symbols; ``drop`` removes a share of the bars, as suspensions do."""

    def make(
        lengths: Sequence[int],
        *,
        seed: int = 0,
        horizon: int = 5,
        breaks: Sequence[Sequence[int]] | None = None,
        drop: float = 0.0,
    ) -> Panel:
        cuts = breaks or [()] * len(lengths)
        frames = [
            bars(n, seed=seed + i, symbol=f"S{i:02d}", breaks=cuts[i])
            for i, n in enumerate(lengths)
        ]
        clean = pd.concat(frames, ignore_index=True)
        calendar = np.unique(clean["date"].to_numpy().astype("datetime64[D]"))
        kept = np.random.default_rng(seed).random(len(clean)) >= drop
        kept[0] = True  # a panel has at least one bar
        return build_panel(clean[kept].reset_index(drop=True), calendar, horizon)

    return make


@pytest.fixture(scope="session")
def spec() -> WindowSpec:
    """Short windows, so that small panels have many of them."""
    return WindowSpec(
        lookback=8,
        horizon=5,
        purge=5,
        embargo=5,
        validation_start=dt.date(2015, 8, 3),
        test_start=dt.date(2015, 10, 1),
    )
