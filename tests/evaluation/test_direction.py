"""Pesaran and Timmermann's test: by hand, its size and power, with and without overlap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.evaluation.direction import pesaran_timmermann, robust_direction


def rolling(values: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(values, np.ones(width), "valid")


def table(both: int, said: int, rose: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a 2 x 2 table: said up and rose, said up only, rose only, neither."""
    rows = [(1, 1)] * both + [(1, 0)] * said + [(0, 1)] * rose + [(0, 0)] * none
    x, y = np.array(rows, dtype=bool).T
    return x, y


def test_by_hand() -> None:
    # 30, 10, 20, 40 of 100: said 40 %, rose 50 %, right 70 %, expected .4 x .5 + .6 x .5 = 50 %.
    # V = .5 x .5 / 100 = .0025; V* = 0 + .04 x .25 / 100 + 4 x .4 x .5 x .6 x .5 / 10,000.
    found = pesaran_timmermann(*table(30, 10, 20, 40))
    assert found is not None
    assert (found.n, found.accuracy, found.expected) == (100, 0.7, pytest.approx(0.5))
    expected = 0.2 / math.sqrt(0.0025 - 0.0001 - 0.000024)
    assert found.statistic == pytest.approx(expected)
    assert found.p_value == pytest.approx(0.5 * math.erfc(expected / math.sqrt(2)))


def test_always_up_is_right_often_and_proves_nothing() -> None:
    up = np.arange(100) < 60
    found = pesaran_timmermann(np.ones(100, dtype=bool), up)
    robust = robust_direction(np.ones(100, dtype=bool), up, np.arange(100), 5)
    for result in (found, robust):
        assert result is not None
        assert result.accuracy == pytest.approx(result.expected) == pytest.approx(0.6)
        assert result.statistic is None
        assert result.p_value is None
    assert pesaran_timmermann(np.zeros(0, bool), np.zeros(0, bool)) is None
    assert robust_direction(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, int), 5) is None


def test_dates_with_more_rows_are_no_variation_by_themselves() -> None:
    # Always right on as many rises as falls: every row says the same, however many a date has.
    date = np.repeat(np.arange(40), np.tile([2, 6], 20))
    up = np.arange(len(date)) % 2 == 0
    found = robust_direction(up, up, date, 1, lag=0)
    assert found is not None
    assert found.accuracy - found.expected == pytest.approx(0.5)
    assert found.statistic is None


@given(st.integers(0, 2**32 - 1), st.integers(5, 200))
def test_the_gap_is_twice_the_covariance(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    said, up = random.random(n) < 0.4, random.random(n) < 0.6
    found = robust_direction(said, up, np.arange(n), 1, lag=0)
    assert found is not None
    gap = found.accuracy - found.expected
    assert gap == pytest.approx(2 * np.cov(said, up, ddof=0)[0, 1])


def test_on_independent_rows_both_tests_agree() -> None:
    random = np.random.default_rng(1)
    up = random.random(5000) < 0.55
    said = np.where(random.random(5000) < 0.04, up, random.random(5000) < 0.4)
    classic = pesaran_timmermann(said, up)
    robust = robust_direction(said, up, np.arange(5000), 1, lag=0)
    assert classic is not None
    assert robust is not None
    assert robust.statistic == pytest.approx(classic.statistic, rel=0.02)


def rejections(days: int, overlap: int, shares: int, repeats: int, skill: float = 0.0) -> list:
    """Shares of 5 % tests that reject: the classic one, and the robust one."""
    random, classic, robust = np.random.default_rng(31), 0, 0
    date, symbol = np.repeat(np.arange(days), shares), np.tile(np.arange(shares), days)
    for _ in range(repeats):
        market = random.normal(size=days + overlap - 1)
        target = rolling(market, overlap)[:, None] / math.sqrt(overlap)
        if shares > 1:
            target = target + 0.5 * random.normal(size=(days, shares))
        state = rolling(random.normal(size=days + 2 * overlap - 1), 2 * overlap)[:days, None]
        state = np.repeat(state, shares, axis=1) / math.sqrt(2 * overlap)
        said = (state + skill * target > 0.2).ravel()
        up = (target > -0.2).ravel()
        a = pesaran_timmermann(said, up)
        b = robust_direction(said, up, date, overlap, symbol=symbol)
        assert a is not None
        assert b is not None
        classic += (a.p_value or 0.5) < 0.05
        robust += (b.p_value or 0.5) < 0.05
    return [classic / repeats, robust / repeats]


def test_size_of_the_classic_test_on_independent_rows() -> None:
    random, found = np.random.default_rng(30), 0
    for _ in range(1000):
        x, y = random.random(250) < 0.4, random.random(250) < 0.55
        result = pesaran_timmermann(x, y)
        assert result is not None
        found += (result.p_value or 0.5) < 0.05
    assert 0.03 < found / 1000 < 0.07


def test_overlap_breaks_the_classic_test_and_not_the_robust_one() -> None:
    classic, robust = rejections(500, 5, 1, 500)
    print(classic, robust)
    assert classic > 0.10
    assert 0.03 < robust < 0.085


def test_shares_that_move_together_break_it_more() -> None:
    classic, robust = rejections(250, 5, 10, 200)
    print(classic, robust)
    assert classic > 0.25
    assert 0.02 < robust < 0.12


def test_skill_is_found() -> None:
    assert rejections(500, 5, 1, 100, skill=0.6)[1] > 0.9


def test_knowing_which_shares_rise_more_often_is_no_skill() -> None:
    random = np.random.default_rng(33)
    symbol = np.tile(np.arange(10), 500)
    share = np.where(symbol < 5, 0.35, 0.65)
    up, said = random.random(5000) < share, random.random(5000) < share
    date = np.repeat(np.arange(500), 10)
    common = robust_direction(said, up, date, 1)
    own = robust_direction(said, up, date, 1, symbol=symbol)
    assert common is not None
    assert own is not None
    assert (common.p_value or 1) < 1e-4
    assert (own.p_value or 0) > 0.05
    assert own.expected == pytest.approx(0.545, abs=0.02)
