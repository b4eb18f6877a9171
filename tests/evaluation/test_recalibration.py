"""Overconfident probabilities are tamed by what was learned on other rows."""

from __future__ import annotations

import numpy as np
import pytest

from vnquant.evaluation.calibration import expected_calibration_error
from vnquant.evaluation.recalibration import fit


def outcomes(truth: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(len(truth)) < truth


def test_overconfidence_is_unlearned_and_holds_on_fresh_rows() -> None:
    z = np.random.default_rng(1).normal(0, 0.5, 20_000)
    truth, stated = 1 / (1 + np.exp(-(0.2 + z))), 1 / (1 + np.exp(-3 * z))
    old, new = slice(0, 10_000), slice(10_000, None)
    curve = fit(stated[old], outcomes(truth, 2)[old])
    assert curve is not None
    assert curve.slope == pytest.approx(1 / 3, abs=0.05)
    assert curve.intercept == pytest.approx(0.2, abs=0.1)
    up = outcomes(truth, 3)[new]
    before = expected_calibration_error(stated[new], up)
    after = expected_calibration_error(curve(stated[new]), up)
    assert before is not None
    assert after is not None
    assert before > 0.1
    assert after < 0.03


def test_a_forecaster_that_is_wrong_way_round_is_flattened_not_reversed() -> None:
    p = np.linspace(0.3, 0.7, 1000)
    curve = fit(p, outcomes(1 - p, 4))
    assert curve is not None
    assert curve.slope == 0
    assert np.ptp(curve(p)) == 0


def test_too_little_to_learn_from() -> None:
    assert fit(np.full(99, 0.5), outcomes(np.full(99, 0.5), 5)) is None
    assert fit(np.full(500, 0.6), np.ones(500, dtype=bool)) is None
