"""Against the worked examples of the papers, and size and power by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vnquant.errors import UsageError
from vnquant.evaluation.sharpe import (
    Moments,
    deflated_sharpe,
    expected_best,
    least_track_record,
    moments,
    probabilistic_sharpe,
)


def test_the_worked_example_of_the_deflated_sharpe_ratio() -> None:
    """Bailey and Lopez de Prado (2014), numerical example: 2.5 a year on five years of days,
    skew -3, kurtosis 10, best of 100 trials whose annual ratios have variance 1/2."""
    best, variance = Moments(1250, 2.5 / math.sqrt(250), -3, 10), 0.5 / 250
    assert expected_best(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(best, 100, variance) == pytest.approx(0.9004, abs=5e-5)
    # With 46 trials it would have been accepted at 95 %, if Gaussian even with 88.
    assert deflated_sharpe(best, 46, variance) == pytest.approx(0.9505, abs=5e-5)
    gaussian = Moments(1250, 2.5 / math.sqrt(250), 0, 3)
    assert deflated_sharpe(gaussian, 88, variance) == pytest.approx(0.9505, abs=5e-5)


@pytest.mark.parametrize(
    ("a_year", "skew", "kurtosis", "years"),
    [(250, 0, 3, 2.73), (52, 0, 3, 2.83), (12, 0, 3, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_the_worked_examples_of_the_track_record(
    a_year: int, skew: float, kurtosis: float, years: float
) -> None:
    """Bailey and Lopez de Prado (2012): an annual ratio of 2 against 1, at 95 %."""
    of = Moments(0, 2 / math.sqrt(a_year), skew, kurtosis)
    needed = least_track_record(of, 1 / math.sqrt(a_year))
    assert needed is not None
    assert needed / a_year == pytest.approx(years, abs=0.005)
    enough = Moments(math.ceil(needed), of.sharpe, skew, kurtosis)
    assert probabilistic_sharpe(enough, 1 / math.sqrt(a_year)) == pytest.approx(0.95, abs=0.005)


def test_moments_by_hand_and_where_there_are_none() -> None:
    of = moments(np.array([1.0, 2.0, 3.0, 10.0]))
    assert of is not None
    # Deviations -3 -2 -1 6: squares 50, cubes 180, fourth powers 1394.
    assert of.sharpe == pytest.approx(4 / math.sqrt(50 / 3))
    assert of.skew == pytest.approx(45 / 12.5**1.5)
    assert of.kurtosis == pytest.approx(348.5 / 12.5**2)
    assert moments(np.array([0.1, 0.2])) is None
    assert moments(np.full(9, 0.1)) is None
    assert least_track_record(Moments(9, 0.1, 0, 3), 0.2) is None


def test_no_trial_is_refused_and_one_deflates_nothing() -> None:
    assert expected_best(1, 0.5) == 0.0
    with pytest.raises(UsageError):
        expected_best(0, 0.5)
    with pytest.raises(UsageError):
        expected_best(5, -1.0)


def test_the_expected_best_is_that_of_simulation() -> None:
    drawn = np.random.default_rng(1).normal(0, 0.1, (4000, 50)).max(axis=1)
    assert expected_best(50, 0.01) == pytest.approx(drawn.mean(), rel=0.02)


def test_size_of_the_probabilistic_ratio_on_fat_tails() -> None:
    random, found = np.random.default_rng(2), 0
    for _ in range(1000):
        of = moments(random.standard_t(5, 500))
        assert of is not None
        found += probabilistic_sharpe(of) > 0.95
    assert 0.03 < found / 1000 < 0.07


def test_the_best_of_many_without_skill_is_unmasked_and_true_skill_is_not() -> None:
    random = np.random.default_rng(3)
    fooled = deflated = kept = 0
    for _ in range(200):
        trials = random.normal(size=(40, 500))
        trials[0] += 0.25  # one strategy with skill, left out of the first count
        for chosen in (trials[1:], trials):
            ratios = chosen.mean(axis=1) / chosen.std(axis=1, ddof=1)
            of = moments(chosen[int(ratios.argmax())])
            assert of is not None
            certain = deflated_sharpe(of, len(ratios), float(ratios.var(ddof=1))) > 0.95
            if chosen is trials:
                kept += certain
            else:
                fooled += probabilistic_sharpe(of) > 0.95
                deflated += certain
    print(fooled, deflated, kept)
    assert fooled > 150
    assert deflated < 0.1 * 200
    assert kept > 150
