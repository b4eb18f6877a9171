"""Paired comparison: refused tables, size under no difference, power that pairing gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vnquant.errors import DataError
from vnquant.evaluation.comparison import compare_forecasts, paired
from vnquant.evaluation.metrics import point_metrics


def tables(seed: int, *, skill: float = 0.0, days: int = 120) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two forecasters of eight shares, two sessions ahead; the first knows ``skill`` of it."""
    random = np.random.default_rng(seed)
    dates = pd.bdate_range("2023-01-02", periods=days)
    y = random.normal(0, 0.02, (days, 8, 2))

    def one(part: float) -> pd.DataFrame:
        mu = part * y + random.normal(0, 0.01, y.shape)
        frame = pd.DataFrame(
            {
                "symbol": np.tile([f"S{i}" for i in range(8)], days),
                "date": np.repeat(dates.to_numpy(), 8),
            }
        )
        for i in (1, 2):
            frame[f"mu_{i}"] = mu[:, :, i - 1].ravel()
            frame[f"sigma_{i}"] = 0.02
            frame[f"y_{i}"] = y[:, :, i - 1].ravel()
        return frame.assign(p_up=1 / (1 + np.exp(-50 * mu.sum(axis=2).ravel())))

    return one(skill), one(0.0)


def test_figures_are_those_of_the_metrics() -> None:
    first, second = tables(0, skill=0.3)
    found = compare_forecasts(first, second, samples=200)
    one, two = point_metrics(first), point_metrics(second)
    for name in ("accuracy", "mae_sum", "brier", "ic", "rank_ic"):
        difference = found[name]
        assert difference is not None
        assert difference.first == pytest.approx(one[name])
        assert difference.second == pytest.approx(two[name])
        assert difference.difference == pytest.approx(one[name] - two[name])
    mse = found["mse_sum"]
    assert mse is not None
    assert mse.first == pytest.approx(one["rmse_sum"] ** 2)


def test_the_order_of_rows_is_nothing_and_the_same_forecasts_are_equal() -> None:
    first, second = tables(1)
    shuffled = second.sample(frac=1, random_state=0)
    assert compare_forecasts(first, second, samples=100) == compare_forecasts(
        first, shuffled, samples=100
    )
    same = compare_forecasts(first, first, samples=100)
    for difference in same.values():
        assert difference is not None
        assert difference.difference == 0
        assert difference.interval == [0, 0]
        assert difference.p_value == 1


def test_other_rows_targets_or_horizons_are_refused() -> None:
    first, second = tables(2)
    with pytest.raises(DataError, match="rows"):
        compare_forecasts(first, second.iloc[1:])
    with pytest.raises(DataError, match="same symbols"):
        compare_forecasts(first, second.assign(symbol=second["symbol"].str.lower()))
    with pytest.raises(DataError, match="realised"):
        compare_forecasts(first, second.assign(y_1=0.0))
    with pytest.raises(DataError, match="horizons"):
        compare_forecasts(first, second.drop(columns=["mu_2", "y_2", "sigma_2"]))


def test_too_few_dates_have_a_difference_and_no_interval() -> None:
    first, second = tables(3, days=8)
    accuracy = compare_forecasts(first, second)["accuracy"]
    assert accuracy is not None
    assert accuracy.interval is accuracy.p_value is None


def test_false_positives_and_power() -> None:
    repeats = 120
    wrong = right = 0
    for seed in range(repeats):
        none = compare_forecasts(*tables(100 + seed), samples=200)["rank_ic"]
        some = compare_forecasts(*tables(100 + seed, skill=0.1), samples=200)["rank_ic"]
        assert none is not None
        assert some is not None
        wrong += (none.p_value or 1) < 0.05
        right += (some.p_value or 1) < 0.05
    print(wrong / repeats, right / repeats)
    assert 0.005 < wrong / repeats < 0.12
    assert right / repeats > 0.8


def test_pairing_cancels_what_moves_both() -> None:
    """Two losses that share a large market part: their difference is seen, apart they drown."""
    random = np.random.default_rng(5)
    market = np.convolve(random.normal(0, 1, 304), np.ones(5), "valid")
    first, second = market + random.normal(0, 0.2, 300), market + 0.1 + random.normal(0, 0.2, 300)
    found = paired(first, second, np.ones(300), 5)
    assert found is not None
    assert (found.p_value or 1) < 0.01
    assert found.difference == pytest.approx(first.mean() - second.mean())
    unpaired = paired(first, np.roll(second, 97), np.ones(300), 5)
    assert unpaired is not None
    assert (unpaired.p_value or 0) > 0.05
    assert paired(first[:0], second[:0], np.zeros(0), 5) is None
