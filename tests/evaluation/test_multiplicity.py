"""Benjamini and Hochberg: their own example, and the share of false discoveries."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.errors import UsageError
from vnquant.evaluation.multiplicity import benjamini_hochberg

PAPER = np.array(
    [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
        *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
    ]
)
"""Section 3.2 of the paper (1995): 15 hypotheses, four rejected at 5 %; Bonferroni rejects 3."""


def test_the_example_of_the_paper() -> None:
    adjusted = benjamini_hochberg(PAPER)
    assert (adjusted <= 0.05).sum() == 4
    assert adjusted[3] == pytest.approx(0.0095 * 15 / 4)
    # 0.0298 x 15 / 7 is below 0.0278 x 15 / 6: the smaller one counts for both.
    assert adjusted[[5, 6]] == pytest.approx([0.0298 * 15 / 7, 0.0298 * 15 / 7])
    assert (benjamini_hochberg(PAPER, dependent=True) <= 0.05).sum() == 3


def test_order_and_undefined_tests_do_not_matter() -> None:
    shuffle = np.random.default_rng(0).permutation(15)
    assert benjamini_hochberg(PAPER[shuffle]) == pytest.approx(benjamini_hochberg(PAPER)[shuffle])
    with_hole = benjamini_hochberg(np.array([0.01, np.nan, 0.04]))
    assert with_hole == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    assert len(benjamini_hochberg(np.zeros(0))) == 0
    with pytest.raises(UsageError):
        benjamini_hochberg(np.array([0.5, 1.5]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_values_only_grow_and_keep_the_order(values: list[float]) -> None:
    p = np.array(values)
    adjusted = benjamini_hochberg(p)
    assert (adjusted >= p - 1e-15).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-15).all()
    assert (benjamini_hochberg(p, dependent=True) >= adjusted).all()


@pytest.mark.parametrize("common", [0.0, 0.7])
def test_false_discoveries_stay_below_the_level(common: float) -> None:
    """102 symbols, 12 of them with an edge; tests share a market factor of correlation common^2."""
    random, tail = np.random.default_rng(4), np.vectorize(NormalDist().cdf)
    false, naive, found, repeats = 0.0, 0.0, 0.0, 300
    for _ in range(repeats):
        z = common * random.normal() + np.sqrt(1 - common**2) * random.normal(size=102)
        z[:12] += 4
        p = tail(-z)
        for limit, adjusted in ((True, benjamini_hochberg(p)), (False, p)):
            rejected = adjusted <= 0.1
            share = rejected[12:].sum() / max(rejected.sum(), 1)
            if limit:
                false, found = false + share, found + rejected[:12].mean()
            else:
                naive += share
    assert false / repeats < 0.12
    assert found / repeats > 0.6
    assert naive / repeats > false / repeats + 0.1
