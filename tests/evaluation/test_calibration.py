"""Calibration: exact small cases and bounds that hold for every forecast."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.evaluation.calibration import (
    BINS,
    brier_score,
    coverage_80,
    expected_calibration_error,
    reliability,
)

FORECASTS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def columns(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in rows]), np.array([up for _, up in rows])


def test_ten_bins_of_equal_count_by_hand() -> None:
    p = np.arange(40) / 40
    up = p > 0.5
    table = reliability(p, up)
    assert [b["n"] for b in table] == [4] * BINS
    assert table[0] == {
        "n": 4,
        "low": 0.0,
        "high": 0.075,
        "stated": pytest.approx(0.0375),
        "observed": 0.0,
    }
    # p = .5 to .575 is one bin, and .5 itself did not rise.
    assert [b["observed"] for b in table] == [0, 0, 0, 0, 0, 0.75, 1, 1, 1, 1]
    expected = sum(abs(b["stated"] - b["observed"]) for b in table) / BINS
    assert expected_calibration_error(p, up) == pytest.approx(expected)


def test_true_probabilities_are_calibrated_and_shifted_ones_are_not() -> None:
    random = np.random.default_rng(0)
    p = random.uniform(0.3, 0.7, 20_000)
    up = random.uniform(size=len(p)) < p
    honest = expected_calibration_error(p, up)
    shifted = expected_calibration_error(p + 0.1, up)
    assert honest is not None
    assert honest < 0.015
    assert shifted == pytest.approx(0.1, abs=0.01)


def test_a_true_gaussian_is_covered_four_times_in_five() -> None:
    realised = np.random.default_rng(1).normal(0, 0.04, 20_000)
    zero = np.zeros(len(realised))
    assert coverage_80(zero, zero + 0.04, realised) == pytest.approx(0.8, abs=0.01)
    assert coverage_80(zero, zero + 0.02, realised) == pytest.approx(0.478, abs=0.015)


def test_nothing_is_undefined_not_zero() -> None:
    none, never = np.zeros(0), np.zeros(0, dtype=bool)
    assert reliability(none, never) == []
    assert expected_calibration_error(none, never) is None
    assert brier_score(none, never) is None
    assert coverage_80(none, none, none) is None


@given(FORECASTS)
def test_the_table_holds_every_row_once_and_explains_the_error(
    rows: list[tuple[float, bool]],
) -> None:
    p, up = columns(rows)
    table = reliability(p, up)
    assert 1 <= len(table) <= BINS
    assert sum(b["n"] for b in table) == len(p)
    assert all(a["high"] < b["low"] for a, b in pairwise(table))
    error = sum(b["n"] * abs(b["stated"] - b["observed"]) for b in table) / len(p)
    assert expected_calibration_error(p, up) == pytest.approx(error)


@given(FORECASTS)
def test_scores_stay_within_their_bounds(rows: list[tuple[float, bool]]) -> None:
    p, up = columns(rows)
    error, brier = expected_calibration_error(p, up), brier_score(p, up)
    assert error is not None
    assert brier is not None
    # The mean distance in a bin is at least that of its means; Jensen bounds it by the score.
    assert 0 <= error <= np.sqrt(brier) + 1e-12
    assert brier <= 1
