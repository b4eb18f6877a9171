"""Small simulated bars that the tests of this package break in many ways."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from vnquant.market.synthetic import SyntheticMarket


@pytest.fixture(scope="session")
def market_bars() -> pd.DataFrame:
    """Two years of three symbols, one of each exchange; do not change it, copy it."""
    return SyntheticMarket(7).load(
        ["FPT", "PVS", "ACV"], start=dt.date(2019, 1, 2), end=dt.date(2020, 12, 31)
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[pd.DataFrame, str], Path]:
    """Write bars under a name; the suffix decides the format."""

    def _write(frame: pd.DataFrame, name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        if path.suffix == ".parquet":
            frame.to_parquet(path, index=False)
        else:
            frame.to_csv(path, index=False)
        return path

    return _write
