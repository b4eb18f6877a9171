"""The block bootstrap: exact small cases, and coverage where the naive interval fails."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vnquant.evaluation.intervals import (
    block_length,
    newey_west_se,
    percentile_interval,
    resampled_sums,
    two_sided_p,
)


def test_block_length_is_the_larger_of_both_rules() -> None:
    assert block_length(500, 5) == 10
    assert block_length(1000, 1) == 10
    assert block_length(1001, 1) == 11
    assert block_length(27, 1) == 3
    assert block_length(8, 5) == 10


def test_every_sample_is_made_of_whole_circular_blocks() -> None:
    n, block = 11, 3
    # One-hot dates: a sample's total counts how often each date was drawn.
    drawn = resampled_sums(np.eye(n), block, 500, seed=1)
    assert drawn is not None
    assert (drawn.sum(axis=1) == n).all()
    generator = np.random.Generator(np.random.Philox(1))
    starts = generator.integers(0, n, size=(500, 4))
    for sample, row in zip(drawn, starts, strict=True):
        expected = np.zeros(n)
        for start, length in zip(row, (3, 3, 3, 2), strict=True):
            np.add.at(expected, (start + np.arange(length)) % n, 1)
        assert (sample == expected).all()


def test_the_seed_decides_and_chunks_do_not_show() -> None:
    values = np.random.default_rng(0).normal(size=(60, 2))
    first = resampled_sums(values, 5, 5000, seed=4)
    again = resampled_sums(values, 5, 5000, seed=4)
    other = resampled_sums(values, 5, 5000, seed=5)
    assert first is not None
    assert again is not None
    assert other is not None
    assert (first == again).all()
    assert (first != other).any()
    assert first.mean(axis=0) == pytest.approx(values.sum(axis=0), abs=1.0)


def test_too_few_blocks_have_no_interval() -> None:
    assert resampled_sums(np.ones((29, 1)), 10, 100, seed=0) is None
    assert resampled_sums(np.ones((30, 1)), 10, 100, seed=0) is not None


def test_percentile_interval_by_hand() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx([5.0, 95.0])


def test_newey_west_by_hand() -> None:
    series = np.array([1.0, 2.0, 3.0, 4.0])
    # Deviations -1.5 -.5 .5 1.5: variance 1.25, first autocovariance (.75 - .25 + .75) / 4.
    assert newey_west_se(series, 0) == pytest.approx(math.sqrt(1.25 / 4))
    assert newey_west_se(series, 1) == pytest.approx(math.sqrt((1.25 + 0.3125) / 4))
    assert newey_west_se(series, 3) is None


def test_blocks_cover_noise_with_overlapping_targets_and_iid_does_not() -> None:
    """True accuracy is 50 %; hits are correlated, as targets overlap and forecasts persist."""
    random, days, horizon, level = np.random.default_rng(11), 400, 5, 0.95
    repeats, inside, inside_naive = 300, 0, 0
    for _ in range(repeats):
        daily = random.normal(size=days + horizon)
        realised = np.convolve(daily, np.ones(horizon), "valid")[1:]
        state = np.convolve(random.normal(size=days + 9), np.ones(10), "valid")
        hit = (state > 0) == (realised > 0)
        totals = resampled_sums(
            hit[:, None].astype(np.float64), block_length(days, horizon), 400, seed=3
        )
        assert totals is not None
        low, high = percentile_interval(totals[:, 0] / days, level)
        inside += low <= 0.5 <= high
        half = 1.96 * math.sqrt(hit.mean() * (1 - hit.mean()) / days)
        inside_naive += abs(hit.mean() - 0.5) <= half
    print(inside / repeats, inside_naive / repeats)
    assert inside / repeats > 0.87
    assert inside_naive < inside - 0.1 * repeats


def test_shares_that_move_together_are_not_independent_rows() -> None:
    """Ten shares share most of each move: drawing dates covers 50 %, drawing rows does not."""
    random, days, horizon, shares = np.random.default_rng(12), 250, 5, 10
    repeats, inside, inside_naive = 200, 0, 0
    for _ in range(repeats):
        market = random.normal(size=(days + horizon, 1))
        daily = market + 0.5 * random.normal(size=(days + horizon, shares))
        total = np.cumsum(daily, axis=0)
        realised = total[horizon:] - total[:-horizon]
        state = np.convolve(random.normal(size=days + 4), np.ones(5), "valid")
        hits = ((state[:, None] > 0) == (realised > 0)).sum(axis=1).astype(np.float64)
        drawn = resampled_sums(hits[:, None], block_length(days, horizon), 400, seed=3)
        assert drawn is not None
        rows = days * shares
        low, high = percentile_interval(drawn[:, 0] / rows, 0.95)
        inside += low <= 0.5 <= high
        share = hits.sum() / rows
        inside_naive += abs(share - 0.5) <= 1.96 * math.sqrt(share * (1 - share) / rows)
    assert inside / repeats > 0.85
    assert inside_naive / repeats < 0.6


def test_p_value_by_hand() -> None:
    # One of 99 values is not above 0: twice (1 + 1) in (99 + 1).
    assert two_sided_p(np.array([-1.0] + [1.0] * 98)) == pytest.approx(0.04)
    assert two_sided_p(np.full(99, -1.0)) == pytest.approx(0.02)
    assert two_sided_p(np.zeros(99)) == 1.0
    assert two_sided_p(np.array([-1.0, 1.0])) == 1.0
