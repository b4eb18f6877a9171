"""Random numbers are functions of the model and its step; dropout has the right rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vnquant.stockformer.randomness import (
    drop_levels,
    dropout,
    model_keys,
    random_bytes,
    shuffled,
    site_keys,
)


def keys_at(step: int, models: int = 4) -> torch.Tensor:
    names = [f"S{i}" for i in range(models)]
    return site_keys(
        model_keys(0, names, [0] * models), torch.full((models,), step, dtype=torch.int32), 5
    )


def test_bytes_are_uniform_and_differ_by_model_step_and_site() -> None:
    keys = keys_at(0)
    drawn = random_bytes(keys[:, 0], 1 << 18).long()
    counts = torch.stack([torch.bincount(row, minlength=256) for row in drawn]).double()
    expected = (1 << 18) / 256
    chi = ((counts - expected) ** 2 / expected).sum(1)
    # 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert ((chi > 140) & (chi < 370)).all(), chi
    others = (random_bytes(keys[:, 1], 1 << 18), random_bytes(keys_at(1)[:, 0], 1 << 18))
    for other in others:
        same = (drawn == other.long()).double().mean(1)
        assert ((same - 1 / 256).abs() < 0.001).all()
    between = (drawn[0] == drawn[1]).double().mean()
    assert abs(float(between) - 1 / 256) < 0.001


def test_neighbouring_elements_are_independent() -> None:
    drop = (random_bytes(keys_at(2, 1)[:, 0], 1 << 20)[0] < 26).double()
    for gap in (1, 2, 3, 4, 64, 1920):
        together = float((drop[:-gap] * drop[gap:]).mean())
        assert together == pytest.approx((26 / 256) ** 2, rel=0.05)


@pytest.mark.parametrize("rate", [0.10, 0.15, 0.20])
def test_dropout_rate_and_scale(rate: float) -> None:
    x = torch.ones(3, 40, 50, 64)
    keys = keys_at(0, 3)[:, 0]
    level = drop_levels(torch.full((3,), rate))
    out = dropout(x, keys, level)
    share = (out == 0).double().mean()
    assert abs(float(share) - round(rate * 256) / 256) < 0.003
    assert abs(float(out.mean()) - 1.0) < 0.005
    assert dropout(x, keys, drop_levels(torch.zeros(3))).equal(x)


def test_models_of_one_stack_may_have_different_rates() -> None:
    level = drop_levels(torch.tensor([0.0, 0.5]))
    out = dropout(torch.ones(2, 1 << 16), keys_at(0, 2)[:, 0], level)
    assert float((out[0] == 0).double().mean()) == 0.0
    assert abs(float((out[1] == 0).double().mean()) - 0.5) < 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 500), st.integers(1, 400))
def test_shuffle_is_a_permutation_of_the_model_and_epoch(seed: int, epoch: int, count: int) -> None:
    one = shuffled(seed, "FPT", 0, epoch, count)
    assert np.array_equal(np.sort(one), np.arange(count))
    assert np.array_equal(one, shuffled(seed, "FPT", 0, epoch, count))
    if count > 20:
        assert not np.array_equal(one, shuffled(seed, "FPT", 1, epoch, count))
        assert not np.array_equal(one, shuffled(seed, "VCB", 0, epoch, count))
        assert not np.array_equal(one, shuffled(seed, "FPT", 0, epoch + 1, count))
