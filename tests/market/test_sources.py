from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vnquant.errors import UsageError
from vnquant.market.folder import PriceFolder
from vnquant.market.sources import open_source, snapshot_hash


def test_open_source(tmp_path):
    assert open_source("synthetic", None).name == "synthetic"
    assert open_source("folder", tmp_path).name == "folder"
    with pytest.raises(UsageError, match="--prices"):
        open_source("folder", None)


def test_the_seed_makes_the_market():
    a, b = (open_source("synthetic", None, seed=s) for s in (0, 3))
    first, other = (s.load(["FPT"], start=None, end=None) for s in (a, b))
    assert snapshot_hash(first) != snapshot_hash(other)


def test_the_hash_is_of_content_only(market_bars, write):
    expected = snapshot_hash(market_bars)
    assert snapshot_hash(market_bars.sample(frac=1, random_state=1)) == expected
    assert snapshot_hash(market_bars[list(market_bars.columns[::-1])]) == expected
    for name in ("a.parquet", "b.csv"):
        assert snapshot_hash(PriceFolder(write(market_bars, name)).load()) == expected


@pytest.mark.parametrize("column", ["close", "adj_close", "volume", "value", "change_text"])
def test_any_changed_cell_changes_the_hash(market_bars, column):
    changed = market_bars.copy()
    changed.loc[17, column] = "x" if column == "change_text" else 1.25
    assert snapshot_hash(changed) != snapshot_hash(market_bars)


def test_missing_and_empty_text_and_both_zeros_hash_alike(market_bars):
    a = market_bars.assign(change_text=None, value=0.0)
    b = market_bars.assign(change_text=np.nan, value=-0.0)
    assert snapshot_hash(a) == snapshot_hash(b)


def test_a_dropped_row_changes_the_hash(market_bars):
    assert snapshot_hash(market_bars.iloc[1:]) != snapshot_hash(market_bars)
    assert len(snapshot_hash(market_bars)) == 64


def test_the_hash_is_stable():
    # A changed hash makes every recorded spec unusable, so it may only change on purpose.
    bars = pd.DataFrame(
        {
            "symbol": ["FPT"],
            "exchange": ["HOSE"],
            "date": np.array(["2023-01-03"], dtype="datetime64[s]"),
            "open": [80.0],
            "high": [81.5],
            "low": [79.9],
            "close": [81.0],
            "adj_close": [52.61],
            "volume": [1_000_000.0],
            "value": [np.nan],
            "change_text": ["1(1.25 %)"],
        }
    )
    assert snapshot_hash(bars) == "57271d9dd8a785f46f3629a3bb59ed4f539f758f9cecd7ecd485f4d219a7fcd6"
