"""Shares of rises by year, and what one says of the next."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.base_rates import LEAST_SESSIONS, by_year, persistence


def test_a_year_has_its_mean_and_a_short_one_is_left_out() -> None:
    days = pd.bdate_range("2019-01-01", periods=LEAST_SESSIONS)
    few = pd.bdate_range("2020-01-01", periods=LEAST_SESSIONS - 1)
    share = np.random.default_rng(0).uniform(0.3, 0.5, len(days))
    found = by_year(pd.concat([pd.Series(share, days), pd.Series(0.9, few)]))
    assert [row["year"] for row in found] == [2019]
    assert found[0]["rises"] == pytest.approx(share.mean())
    assert 0 < found[0]["s.e."] < 0.02


def test_years_that_follow_each_other_persist_and_years_that_take_turns_do_not() -> None:
    assert persistence([0.40, 0.42, 0.47, 0.50, 0.56, 0.58]) > 0.8
    assert persistence([0.40, 0.58, 0.42, 0.57, 0.41, 0.56]) < -0.8
