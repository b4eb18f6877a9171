"""Scaling from the measured card."""

from __future__ import annotations

import pytest

from benchmarks.tiers import EPOCH_SECONDS, EPOCHS, H100, WALL_SECONDS, scaled


def test_the_measured_card_is_itself() -> None:
    assert scaled(H100) == pytest.approx((WALL_SECONDS, WALL_SECONDS))


def test_half_the_arithmetic_and_a_quarter_of_the_bandwidth() -> None:
    card = H100._replace(tflops=H100.tflops / 2, gigabytes=H100.gigabytes / 4)
    training = EPOCH_SECONDS * EPOCHS
    assert scaled(card) == pytest.approx((WALL_SECONDS + training, WALL_SECONDS + 3 * training))
