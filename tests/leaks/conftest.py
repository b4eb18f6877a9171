"""Honest components, on simulated prices; the tests plant one leak each."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from vnquant.features.panel import Panel, build_panel
from vnquant.features.windows import Scaler, Windows, fit_scaler, split
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.sources import open_source
from vnquant.spec import RunSpec, WindowSpec

SYMBOLS = ("FPT", "MBB", "VNM")
SPEC = RunSpec(
    symbols=SYMBOLS,
    windows=WindowSpec(
        lookback=20, validation_start=dt.date(2021, 6, 1), test_start=dt.date(2022, 6, 1)
    ),
)
GAP = ("2022-03-02", "2022-03-08")
"""FPT is suspended between these dates, both included."""
CUTS = ("2022-03-01", "2022-03-04", "2022-03-09", "2022-11-15", "2023-06-30")


def prepare(raw: pd.DataFrame) -> Panel:
    """What the stages ingest and features do."""
    calendar = sessions(raw)
    clean = inspect(raw, calendar, max_gap=SPEC.windows.max_gap).clean
    return build_panel(clean, calendar, SPEC.windows.horizon)


@pytest.fixture(scope="package")
def raw() -> pd.DataFrame:
    bars = open_source("synthetic", None).load(SYMBOLS, start=dt.date(2019, 1, 1), end=None)
    away = (bars["symbol"] == "FPT") & bars["date"].between(*map(pd.Timestamp, GAP))
    return bars[~away].reset_index(drop=True)


@pytest.fixture(scope="package")
def panel(raw: pd.DataFrame) -> Panel:
    return prepare(raw)


@pytest.fixture(scope="package")
def windows(panel: Panel) -> list[Windows]:
    return split(panel, SPEC.windows)


@pytest.fixture(scope="package")
def scalers(panel: Panel, windows: list[Windows]) -> dict[str, Scaler]:
    return {w.symbol: fit_scaler(panel, w) for w in windows}


@pytest.fixture(scope="package")
def ends(windows: list[Windows]) -> dict[str, np.ndarray]:
    return {w.symbol: w.test for w in windows}
