"""From forecasts to weights, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backtest.cases import NO
from vnquant.backtest.portfolio import proportional, sleeves, spread, top_k
from vnquant.errors import UsageError


def test_forecasts_are_spread_by_date_and_symbol() -> None:
    dates = np.array(["2023-06-05", "2023-06-06"], dtype="datetime64[D]")
    table = pd.DataFrame(
        {
            "symbol": ["B", "A", "X", "A"],
            "date": pd.to_datetime(["2023-06-05", "2023-06-06", "2023-06-06", "2023-07-01"]),
            "mu": [1.0, 2.0, 3.0, 4.0],
        }
    )
    found = spread(table, table["mu"], dates, ["A", "B"])
    assert found[0].tolist() == pytest.approx([NO, 1.0], nan_ok=True)
    assert found[1].tolist() == pytest.approx([2.0, NO], nan_ok=True)


def test_the_best_k_share_the_money_and_ties_go_to_the_first() -> None:
    forecast = np.array([[0.1, 0.3, 0.1, NO], [NO, NO, -0.1, NO], [-0.2, -0.1, 0.2, 0.3]])
    assert top_k(forecast, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0], [0, 0, 0.5, 0.5]]
    assert top_k(forecast, 3, above=0.0)[2].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3])
    allowed = np.array([[True, False, True, True]] * 3)
    assert top_k(forecast, 1, allowed=allowed)[0].tolist() == [1, 0, 0, 0]
    with pytest.raises(UsageError):
        top_k(forecast, 0)


def test_proportional_to_rises_with_a_cap() -> None:
    forecast = np.array([[0.1, 0.3, -0.5, NO], [-0.1, NO, -0.2, 0.0]])
    assert proportional(forecast, most=1.0)[0].tolist() == pytest.approx([0.25, 0.75, 0, 0])
    assert proportional(forecast, most=0.5)[0].tolist() == pytest.approx([0.25, 0.5, 0, 0])
    assert proportional(forecast)[1].tolist() == [0, 0, 0, 0]


def test_each_sleeve_is_held_for_its_sessions() -> None:
    chosen = np.zeros((9, 2))
    chosen[0, 0] = chosen[1, 1] = 1.0
    weights = sleeves(chosen)
    assert weights[:, 0].tolist() == pytest.approx([0.2] * 5 + [0] * 4)
    assert weights[:, 1].tolist() == pytest.approx([0] + [0.2] * 5 + [0] * 3)
    assert (sleeves(chosen, 1) == chosen).all()
    with pytest.raises(UsageError):
        sleeves(chosen, 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 8))
def test_weights_are_long_and_within_the_capital(seed: int, k: int, holding: int) -> None:
    random = np.random.default_rng(seed)
    forecast = np.where(random.random((15, 5)) < 0.8, random.integers(-3, 4, (15, 5)), np.nan)
    for chosen in (top_k(forecast, k), proportional(forecast, most=1.0)):
        weights = sleeves(chosen, holding)
        assert (weights >= 0).all()
        assert (weights.sum(axis=1) <= 1 + 1e-9).all()
    assert ((top_k(forecast, k) > 0).sum(axis=1) <= k).all()
