"""Calibration: exact small cases and bounds that hold for every forecast."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.evaluation.calibration import (
    BINS,
    brier_parts,
    brier_score,
    calibration_p_value,
    coverage_80,
    expected_calibration_error,
    maximum_calibration_error,
    reliability,
    reliability_by_width,
    wilson,
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


def test_bins_of_equal_width_by_hand() -> None:
    p = np.array([0.05, 0.41, 0.43, 0.49, 0.45, 1.0])
    up = np.array([False, True, True, False, True, True])
    table = reliability_by_width(p, up)
    assert [row["n"] for row in table] == [1, 4, 1]
    middle = table[1]
    assert (middle["low"], middle["high"], middle["observed"]) == (0.41, 0.49, 0.75)
    assert middle["stated"] == pytest.approx(0.445)
    assert middle["gap"] == pytest.approx(0.305)
    assert middle["observed_low"] < 0.75 < middle["observed_high"]
    assert reliability_by_width(p[:0], up[:0]) == []
    assert maximum_calibration_error(p[:0], up[:0]) is None


def test_wilsons_interval() -> None:
    # 81 of 263: 0.2553 to 0.3662, an example of Newcombe (1998).
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20)[0] == 0.0
    assert wilson(0.0, 20)[1] == pytest.approx(0.1611, abs=5e-5)


@given(FORECASTS)
def test_the_parts_of_the_brier_score_add_up(rows: list[tuple[float, bool]]) -> None:
    p, up = columns(rows)
    parts = brier_parts(p, up)
    assert parts is not None
    whole = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"]
    assert whole == pytest.approx(parts["score"]) == pytest.approx(brier_score(p, up))
    assert parts["resolution"] <= parts["uncertainty"] + 1e-12
    largest, mean = maximum_calibration_error(p, up), expected_calibration_error(p, up)
    assert largest is not None
    assert mean is not None
    assert largest >= mean - 1e-12


def test_probabilities_in_few_values_leave_nothing_within_the_bins() -> None:
    random = np.random.default_rng(7)
    p = random.choice([0.3, 0.5, 0.7], 5000)
    parts = brier_parts(p, random.random(5000) < p)
    assert parts is not None
    assert parts["within"] == pytest.approx(0, abs=1e-12)
    # The variance of p is what a calibrated forecaster resolves.
    assert parts["resolution"] == pytest.approx(np.var(p), abs=0.005)
    assert parts["reliability"] < 0.001


def test_calibration_p_value_has_its_size_and_finds_a_shift() -> None:
    random, rejected = np.random.default_rng(8), 0
    for seed in range(200):
        p = random.uniform(0.35, 0.65, 400)
        value = calibration_p_value(p, random.random(400) < p, samples=99, seed=seed)
        assert value is not None
        rejected += value <= 0.05
    assert 0.01 < rejected / 200 < 0.10
    p = random.uniform(0.35, 0.65, 2000)
    shifted = calibration_p_value(p + 0.1, random.random(2000) < p, samples=199)
    assert shifted == pytest.approx(1 / 200)
    assert calibration_p_value(p[:0], np.zeros(0, dtype=bool)) is None
