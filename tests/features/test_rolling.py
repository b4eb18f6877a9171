from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vnquant.features import rolling

series = arrays(np.float64, st.integers(6, 40), elements=st.floats(-1e3, 1e3))
PLAIN = {
    rolling.total: np.sum,
    rolling.mean: np.mean,
    rolling.deviation: np.std,
    rolling.highest: np.max,
    rolling.lowest: np.min,
}


@pytest.mark.parametrize("function", PLAIN)
@given(x=series, n=st.integers(1, 6))
def test_trailing_windows_are_those_of_a_plain_loop(function, x, n):
    expected = [np.nan] * (n - 1) + [PLAIN[function](x[i - n : i]) for i in range(n, len(x) + 1)]
    np.testing.assert_allclose(function(x, n), expected, rtol=1e-12, atol=1e-9)


def test_correlation_is_that_of_numpy_and_0_where_nothing_moves():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    tiny = np.full(50, 1e-8)
    found = rolling.correlation(x, y, 10, tiny, tiny)
    assert np.isnan(found[:9]).all()
    assert found[30] == pytest.approx(np.corrcoef(x[21:31], y[21:31])[0, 1])
    assert (rolling.correlation(x, np.ones(50), 10, tiny, tiny)[9:] == 0.0).all()


@pytest.mark.parametrize("n", [1, 4, 5, 9])
def test_ago_looks_back(n):
    x = np.arange(5.0)
    expected = [x[i - n] if i >= n else np.nan for i in range(5)]
    np.testing.assert_array_equal(rolling.ago(x, n), expected)


def test_guarded_ratio_and_log_ratio():
    top, bottom = np.array([1.0, 1.0, np.nan]), np.array([2.0, 1e-12, 2.0])
    np.testing.assert_array_equal(rolling.guarded(top, bottom, 1e-8, 0.5), [0.5, 0.5, np.nan])
    found = rolling.log_ratio(np.array([0.0, 0.0, np.e]), np.array([0.0, 1.0, 1.0]), 5.0)
    np.testing.assert_allclose(found, [0.0, -5.0, 1.0])
