"""Weights of an ensemble: positive, summing to one, and no better than what they can prove."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.inference import weights
from vnquant.inference.weights import inverse_loss, stacked

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def sample(noise: tuple[float, ...], seed: int = 0, sessions: int = 400) -> Sample:
    """Members that see the outcome through noise; five symbols a session."""
    rng = np.random.default_rng(seed)
    when = np.repeat(np.arange(sessions), 5)
    signal = rng.standard_normal(len(when))
    said = np.stack([signal + n * rng.standard_normal(len(when)) for n in noise], axis=1)
    return said, signal + rng.standard_normal(len(when)), when


def test_inverse_loss_by_hand() -> None:
    outcomes = np.array([1.0, -1.0])
    said = np.array([[0.0, 3.0], [0.0, -3.0]])  # squared errors 1 and 4
    np.testing.assert_allclose(inverse_loss(said, outcomes), [0.8, 0.2])


def test_a_member_without_error_has_nearly_all_the_weight_and_nothing_is_nan() -> None:
    outcomes = np.array([1.0, -1.0])
    found = inverse_loss(np.stack([outcomes, -outcomes], axis=1), outcomes)
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-9)


def test_stacking_finds_the_member_that_knows_more() -> None:
    found = stacked(*sample((0.2, 3.0)), purge=5)
    assert found[0] > 0.9


def test_stacking_leaves_out_a_member_that_says_the_contrary() -> None:
    said, outcomes, when = sample((0.2, 0.2))
    said[:, 1] *= -1.0
    assert stacked(said, outcomes, when, purge=5)[1] == pytest.approx(0.0, abs=1e-9)


def test_where_no_member_knows_anything_more_the_weights_stay_close_to_equal() -> None:
    found = stacked(*sample((1.0, 1.0, 1.0)), purge=5)
    np.testing.assert_allclose(found, 1 / 3, atol=0.05)


def test_too_short_a_history_to_hold_anything_out_leaves_equal_weights() -> None:
    said, outcomes, when = sample((0.2, 3.0), sessions=6)
    np.testing.assert_array_equal(stacked(said, outcomes, when, purge=5), [0.5, 0.5])


def test_no_fit_sees_a_session_within_the_purge_of_what_is_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outcomes carry their session, so that every fit tells which sessions it was given."""
    said, _, when = sample((0.2, 3.0))
    fits, tests = [], []
    honest_fit, honest_error = weights._fit, weights._squared_error

    def fit(x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
        fits.append(set(y))
        return honest_fit(x, y, strength)

    def error(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        tests.append(set(y))
        return honest_error(x, y, w)

    monkeypatch.setattr(weights, "_fit", fit)
    monkeypatch.setattr(weights, "_squared_error", error)
    stacked(said, when.astype(np.float64), when, purge=7)
    each = len(weights.STRENGTHS)
    held = tests[:: each + 1]
    assert len(held) == weights.BLOCKS
    for i, sessions in enumerate(held):
        for known in fits[i * each : (i + 1) * each]:
            assert min(abs(a - b) for a in known for b in sessions) == 8


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_weights_are_always_a_mixture(seed: int, members: int) -> None:
    said, outcomes, when = sample(tuple(range(members)), seed, sessions=60)
    for found in (inverse_loss(said, outcomes), stacked(said, outcomes, when, purge=5)):
        assert (found >= 0).all()
        assert found.sum() == pytest.approx(1.0)
