"""The CPU's hand-written step against autograd; its passes run as plain functions here.

`tests/training/test_kernels.py` runs them compiled.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from tests.stockformer.cases import Case, error, gradient_errors
from vnquant.stockformer import cpu_step
from vnquant.stockformer.cpu_pieces import Mask, Pieces, gelu_, split_heads
from vnquant.stockformer.randomness import random_bytes, random_words

CASES = {
    "small": (2, 3, 64, 4, 128),
    "one_layer": (3, 1, 32, 2, 64),
    "wide_heads": (1, 2, 64, 2, 256),
    "one_window": (1, 2, 48, 3, 80),
}


def by_hand(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    return cpu_step.gradient(case.shape, case.rows, case.x, case.drop, case.loss, pieces=Pieces())


@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES)
def test_the_gradient_agrees_with_autograd(sizes: tuple[int, ...]) -> None:
    case = Case(*sizes)
    true_loss, true = case.plain(torch.float32)
    loss, found = by_hand(case)
    torch.testing.assert_close(loss, true_loss, rtol=1e-6, atol=1e-6)
    errors = gradient_errors(case, found, true)
    assert errors["worst_parameter"] < 5e-6
    assert errors["padding"] == 0.0
    assert errors["key_bias"] == 0.0


def test_the_comparison_sees_dropout() -> None:
    sizes = CASES["small"]
    assert error(by_hand(Case(*sizes, seed=9))[1], Case(*sizes).plain(torch.float32)[1]) > 0.05


def test_weights_and_windows_stay_as_they_are() -> None:
    case = Case(*CASES["small"])
    rows, x = case.rows.clone(), case.x.clone()
    by_hand(case)
    assert torch.equal(case.rows, rows)
    assert torch.equal(case.x, x)


def test_a_model_that_is_not_finite_spoils_no_other() -> None:
    case, sick = Case(*CASES["small"]), Case(*CASES["small"])
    sick.x[1, 0, 0, 0] = torch.nan
    loss, found = by_hand(sick)
    assert not torch.isfinite(loss[1])
    assert torch.equal(found[0], by_hand(case)[1][0])


def test_gelu_and_its_slope_agree_with_torch() -> None:
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64).view(1, -1, 1).requires_grad_()
    (slope,) = torch.autograd.grad(F.gelu(x).sum(), x)
    one = torch.ones(1, dtype=torch.int32)
    keep = Mask(torch.ones(x.shape, dtype=torch.uint8), one, one.float())
    projected = x.detach().float() - 0.5
    found = gelu_(projected, torch.full((1, 1), 0.5), keep)
    torch.testing.assert_close(found.double(), F.gelu(x), rtol=0, atol=2e-6)
    torch.testing.assert_close(projected.double(), slope, rtol=0, atol=1e-6)


def test_a_mask_drops_below_the_level_and_scales_the_rest() -> None:
    byte = torch.tensor([0, 25, 26, 255], dtype=torch.uint8).repeat(2, 1, 1)
    mask = Mask(byte, torch.tensor([26, 0], dtype=torch.int32), torch.tensor([2.0, 1.0]))
    assert mask.factor().tolist() == [[[0.0, 0.0, 2.0, 2.0]], [[1.0, 1.0, 1.0, 1.0]]]


def test_words_hold_the_bytes_that_dropout_draws() -> None:
    key = torch.tensor([[3, 5], [-7, 11]], dtype=torch.int32)
    words = random_words(key, 64)
    assert words.dtype == torch.int32
    assert torch.equal(words.view(torch.uint8), random_bytes(key, 64))


def test_heads_are_split_by_window() -> None:
    parts, batch, length, heads, d = 2, 3, 4, 2, 5
    x = torch.arange(parts * heads * d * batch * length).view(1, parts * heads * d, -1)
    found = split_heads(x, batch, parts, heads).view(parts, batch, heads, d, length)
    rows = x[0].view(parts, heads, d, batch, length)
    for window in range(batch):
        assert torch.equal(found[:, window], rows[:, :, :, window])


def test_windows_longer_than_what_was_measured_are_left_to_the_compiler() -> None:
    shape = Case(*CASES["small"]).shape
    assert cpu_step.supports(shape)
    assert not cpu_step.supports(dataclasses.replace(shape, lookback=200))
