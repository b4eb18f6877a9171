"""Overconfident probabilities are tamed by what was learned on other rows."""

from __future__ import annotations

import numpy as np
import pytest

from vnquant.evaluation.calibration import expected_calibration_error
from vnquant.evaluation.recalibration import PERSISTENCE, fit


def outcomes(truth: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(len(truth)) < truth


def test_overconfidence_is_unlearned_and_holds_on_fresh_rows() -> None:
    z = np.random.default_rng(1).normal(0, 0.5, 20_000)
    old, new = slice(0, 10_000), slice(10_000, None)
    # In the old year one more in twenty rises than falls; the new one knows nothing of that.
    level = np.where(np.arange(20_000) < 10_000, 0.2, 0.0)
    truth, stated = 1 / (1 + np.exp(-(level + z))), 1 / (1 + np.exp(-3 * z))
    curve = fit(stated[old], outcomes(truth, 2)[old])
    assert curve is not None
    assert curve.slope == pytest.approx(1 / 3, abs=0.05)
    # A quarter of the 0.2 by which this year's log-odds of a rise lie above even odds.
    assert curve.intercept == pytest.approx(0.05, abs=0.05)
    up = outcomes(truth, 3)[new]
    before = expected_calibration_error(stated[new], up)
    after = expected_calibration_error(curve(stated[new]), up)
    assert before is not None
    assert after is not None
    assert before > 0.1
    assert after < 0.03


@pytest.mark.parametrize("share", [0.3, 0.5, 0.57])
def test_a_year_says_little_about_how_often_the_next_one_rises(share: float) -> None:
    rng = np.random.default_rng(6)
    level = np.log(share / (1 - share))
    z = rng.normal(0, 0.5, 50_000)
    up = rng.random(len(z)) < 1 / (1 + np.exp(-(level + z)))
    curve = fit(1 / (1 + np.exp(-z)), up)
    assert curve is not None
    mean = curve(1 / (1 + np.exp(-z))).mean()
    believed = 1 / (1 + np.exp(-PERSISTENCE * np.log(up.mean() / (1 - up.mean()))))
    assert mean == pytest.approx(believed, abs=1e-9)
    assert abs(mean - 0.5) < abs(up.mean() - 0.5) or share == 0.5


def test_probabilities_that_are_nearly_certain() -> None:
    p = np.repeat([1e-9, 1 - 1e-9], 500)
    curve = fit(p, np.repeat([False, True], 500) ^ (np.arange(1000) % 10 == 0))
    assert curve is not None
    assert curve(p)[0] == pytest.approx(0.1, abs=0.01)
    assert curve(p)[-1] == pytest.approx(0.9, abs=0.01)


def test_a_forecaster_that_is_wrong_way_round_is_flattened_not_reversed() -> None:
    p = np.linspace(0.3, 0.7, 1000)
    curve = fit(p, outcomes(1 - p, 4))
    assert curve is not None
    assert curve.slope == 0
    assert np.ptp(curve(p)) == 0


def test_too_little_to_learn_from() -> None:
    assert fit(np.full(99, 0.5), outcomes(np.full(99, 0.5), 5)) is None
    assert fit(np.full(500, 0.6), np.ones(500, dtype=bool)) is None
