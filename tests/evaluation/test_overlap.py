"""Means of overlapping series: exact cases, size under the null, power under an alternative."""

from __future__ import annotations

import numpy as np
import pytest

from vnquant.errors import UsageError
from vnquant.evaluation.correlation import correlation_series
from vnquant.evaluation.intervals import newey_west_se
from vnquant.evaluation.overlap import (
    information,
    mean_test,
    overlap_lag,
    two_sided,
)


def rolling(values: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(values, np.ones(width), "valid")


def test_the_lag_covers_the_overlap_twice_or_newey_and_wests_rule() -> None:
    assert overlap_lag(250, 5) == 8
    assert overlap_lag(100, 1) == 4
    assert overlap_lag(5000, 1) == 9
    assert all(overlap_lag(n, h) >= h - 1 for n in (10, 100, 1000) for h in range(1, 30))


def test_what_bartlett_makes_of_full_overlap() -> None:
    """The figures of the docstring: 68 % and 82 % of the true variance."""
    true = 1 - np.arange(5) / 5
    for lag, part in ((4, 0.68), (8, 0.82)):
        weight = np.maximum(1 - np.arange(5) / (lag + 1), 0)
        found = 1 + 2 * float(weight[1:] @ true[1:])
        assert found / 5 == pytest.approx(part, abs=0.006)


def test_by_hand() -> None:
    found = mean_test(np.array([1.0, 2.0, np.nan, 3.0, 4.0]), 2, lag=1)
    assert (found.n, found.mean, found.lag) == (4, 2.5, 1)
    assert found.se == newey_west_se(np.array([1.0, 2.0, 3.0, 4.0]), 1)
    assert found.se is not None
    assert found.t == pytest.approx(2.5 / found.se)
    assert found.p_value == pytest.approx(two_sided(2.5 / found.se))
    assert two_sided(-1.959963984540054) == pytest.approx(0.05)


def test_undefined_and_refused() -> None:
    assert mean_test(np.zeros(0), 5).mean is None
    assert mean_test(np.full(50, 0.3), 5).p_value is None
    assert mean_test(np.array([1.0, 2.0]), 5).se is None
    with pytest.raises(UsageError, match="overlap"):
        mean_test(np.arange(50.0), 5, lag=3)


def rejections(lag: int | None, shift: float = 0.0, repeats: int = 600, days: int = 500) -> float:
    """Share of 5 % tests that reject; the series is a slow signal times a 5-session target."""
    random, found = np.random.default_rng(21), 0
    for _ in range(repeats):
        signal = rolling(random.normal(size=days + 9), 10) / np.sqrt(10)
        target = rolling(random.normal(size=days + 4), 5) / np.sqrt(5)
        p = mean_test(signal * target + shift, 5, lag=lag).p_value
        assert p is not None
        found += p < 0.05
    return found / repeats


def test_false_positives_are_near_nominal_and_with_the_short_lag_more() -> None:
    default, short = rejections(None), rejections(4)
    print(default, short)
    assert 0.03 < default < 0.10
    assert short > default
    assert rejections(None, shift=0.3) > 0.8


def test_ignoring_the_overlap_would_find_what_is_not_there() -> None:
    random, naive = np.random.default_rng(22), 0
    for _ in range(300):
        x = rolling(random.normal(size=254), 5)
        naive += abs(x.mean()) > 1.96 * x.std(ddof=1) / np.sqrt(len(x))
    assert naive / 300 > 0.25


def test_correlations_by_date_by_hand() -> None:
    date = np.repeat([3, 1, 2], 5)
    forecast = np.tile([1.0, 2.0, 3.0, 4.0, 10.0], 3)
    realised = np.concatenate([[1.0, 2, 3, 4, 5], [5.0, 4, 3, 2, 1], [7.0] * 5])
    plain = correlation_series(forecast, realised, date, ranked=False)
    assert plain[0] == pytest.approx(np.corrcoef(forecast[:5], [5, 4, 3, 2, 1])[0, 1])
    assert np.isnan(plain[1])  # date 2 did not vary
    ranked = correlation_series(forecast, realised, date, ranked=True)
    assert ranked[[0, 2]] == pytest.approx([-1, 1])
    few = correlation_series(forecast[:4], realised[:4], date[:4], ranked=False)
    assert np.isnan(few).all()


def test_skill_shows_in_both_and_noise_in_neither() -> None:
    random = np.random.default_rng(23)
    date = np.repeat(np.arange(300), 20)
    forecast = random.normal(size=6000)
    noise = information(forecast, random.normal(size=6000), date, 5)
    skill = information(forecast, random.normal(size=6000) + 0.1 * forecast, date, 5)
    for name in ("ic", "rank_ic"):
        assert noise[name].n == 300
        assert (noise[name].p_value or 0) > 0.05
        assert (skill[name].p_value or 1) < 1e-4
        assert skill[name].mean == pytest.approx(0.1, abs=0.05)
