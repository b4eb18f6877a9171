"""Stability index, weeks and alerts, by hand and at their edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vnquant.evaluation import drift


def test_the_index_of_a_hand_worked_shift() -> None:
    # The reference has a tenth in each bin; the recent part has all of it in the last two.
    reference = np.arange(1000.0)[:, None]
    recent = np.linspace(800, 999, 200)[:, None]
    half, tenth, none = 0.5, 0.1, drift.FLOOR
    wanted = 2 * (half - tenth) * math.log(half / tenth)
    wanted += 8 * (none - tenth) * math.log(none / tenth)
    (found,) = drift.stability_index(reference, recent)
    assert found == pytest.approx(wanted, rel=0.02)


def test_the_same_distribution_is_no_shift_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    reference, recent = rng.normal(size=(20_000, 3)), rng.normal(size=(5_000, 3))
    found = drift.stability_index(reference, recent)
    assert (found < 0.02).all()
    assert (found >= 0).all()
    again = drift.stability_index(rng.permutation(reference), rng.permutation(recent))
    np.testing.assert_allclose(found, again)


def test_what_cannot_be_compared_is_not_a_number() -> None:
    reference = np.array([[1.0, np.nan, 0.0]] * 50)
    recent = np.array([[1.0, 2.0, np.inf]] * 5)
    found = drift.stability_index(reference, recent)
    assert found[0] == 0.0  # a constant that stays
    assert np.isnan(found[1:]).all()
    assert drift.stability_index(reference, recent + 9)[0] > drift.PSI_ALERT


def table(days: list[str], p_up: list[float], y: list[float], symbols: int = 1) -> pd.DataFrame:
    rows = [
        {"symbol": f"S{s}", "date": day, "p_up": p, "mu_1": p - 0.5, "y_1": value}
        for day, p, value in zip(days, p_up, y, strict=True)
        for s in range(symbols)
    ]
    return pd.DataFrame(rows)


def test_weeks_begin_on_mondays() -> None:
    days = ["2024-01-05", "2024-01-08", "2024-01-12"]  # a Friday, a Monday, a Friday
    first, second = drift.by_week(table(days, [0.6, 0.6, 0.4], [0.01, -0.01, -0.01]))
    assert (first["week"], first["n"], first["accuracy"]) == ("2024-01-01", 1, 1.0)
    assert (second["week"], second["dates"], second["accuracy"]) == ("2024-01-08", 2, 0.5)
    assert first["rank_ic"] is None  # one symbol has no order


def pooled(accuracy: float, interval: list[float] | None) -> dict[str, Any]:
    return {"accuracy": accuracy, "accuracy_interval": interval}


@pytest.mark.parametrize(
    ("interval", "alarmed"),
    [([0.40, 0.47], True), ([0.40, 0.49], False), ([0.55, 0.60], False), (None, False)],
)
def test_an_alert_needs_the_whole_interval_below(
    interval: list[float] | None, alarmed: bool
) -> None:
    found = drift.alerts(pooled(0.45, interval), pooled(0.52, [0.48, 0.56]), [], np.array([]))
    assert bool(found) == alarmed


def test_features_that_moved_are_named_worst_first() -> None:
    same = pooled(0.5, None)
    (found,) = drift.alerts(same, same, ["calm", "wild", "moved"], np.array([0.1, 3.0, 0.3]))
    assert found.startswith("2 of 3 features")
    assert found.endswith("wild 3.00, moved 0.30")
    assert "calm" not in found
