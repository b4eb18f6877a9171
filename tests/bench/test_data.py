"""The grown market is one that a price file could hold."""

from __future__ import annotations

import pandas as pd

from benchmarks.data import grown


def test_more_symbols_and_years_without_a_day_twice() -> None:
    bars = grown(104, 10)
    assert bars["symbol"].nunique() == 104
    assert not bars.duplicated(["symbol", "date"]).any()
    pd.testing.assert_frame_equal(bars, bars.sort_values(["symbol", "date"], ignore_index=True))
    assert (bars["date"].dt.day_of_week < 5).all()
    span = bars["date"].max() - bars["date"].min()
    assert pd.Timedelta(days=3640) < span <= pd.Timedelta(days=3653)
