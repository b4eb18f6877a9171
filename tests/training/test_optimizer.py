"""The stacked AdamW against torch's, and its schedule."""

from __future__ import annotations

import pytest
import torch

from vnquant.training.optimizer import Schedule, adamw_


def test_equals_torch_adamw_with_clipping() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 20, generator=generator)
    decay = torch.full((20,), 0.1)
    mine, first, second = start.clone(), torch.zeros(3, 20), torch.zeros(3, 20)
    theirs = [start[i].clone().requires_grad_() for i in range(3)]
    optimisers = [
        torch.optim.AdamW([p], lr=0.01 * (i + 1), weight_decay=0.1) for i, p in enumerate(theirs)
    ]
    rate = torch.tensor([0.01, 0.02, 0.03])
    for step in range(12):
        gradient = 3 * torch.randn(3, 20, generator=generator)
        for i, p in enumerate(theirs):
            p.grad = gradient[i].clone()
            torch.nn.utils.clip_grad_norm_([p], 1.0)
            optimisers[i].step()
        steps = torch.full((3,), step)
        adamw_(
            mine, first, second, gradient, steps, rate, decay, torch.ones(3, dtype=torch.bool), 1.0
        )
    for i, p in enumerate(theirs):
        torch.testing.assert_close(mine[i], p.detach(), rtol=1e-5, atol=1e-6)


def test_rows_that_do_not_move_keep_every_bit() -> None:
    weights, first, second = torch.randn(3, 8), torch.randn(3, 8), torch.rand(3, 8)
    before = [t.clone() for t in (weights, first, second)]
    gradient = torch.randn(3, 8)
    gradient[1] = torch.inf
    moving = torch.tensor([False, True, True])
    finite = adamw_(
        weights,
        first,
        second,
        gradient,
        torch.zeros(3),
        torch.full((3,), 0.1),
        torch.ones(8),
        moving,
        1.0,
    )
    assert finite.tolist() == [True, False, True]
    for old, new in zip(before, (weights, first, second), strict=True):
        assert torch.equal(old[:2], new[:2])
        assert not torch.equal(old[2], new[2])


def test_schedule_counts_each_models_own_steps() -> None:
    schedule = Schedule(rate=1.0, warmup_fraction=0.1)
    total = torch.tensor([100, 1000])
    assert schedule(torch.tensor([0, 0]), total).tolist() == pytest.approx([0.1, 0.01])
    assert schedule(torch.tensor([10, 100]), total).tolist() == pytest.approx([1.0, 1.0])
    assert schedule(torch.tensor([55, 550]), total).tolist() == pytest.approx([0.5, 0.5])
    assert schedule(torch.tensor([100, 1000]), total).tolist() == pytest.approx(
        [0.0, 0.0], abs=1e-6
    )
