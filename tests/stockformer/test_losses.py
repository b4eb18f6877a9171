"""Losses, by hand and by numerical integration."""

from __future__ import annotations

import math

import pytest
import torch

from vnquant.stockformer.losses import (
    HUBER_DEVIATION,
    SIGMA_FLOOR,
    TARGET_CLIP,
    per_model_loss,
    ranking_loss,
    split_outputs,
)


def raw(mu: list[list[float]], scale: float = 0.0) -> torch.Tensor:
    """Outputs of one model: one row of ``mu`` for each window, one spread for all."""
    path = torch.tensor(mu)
    more = torch.full_like(path, scale)
    return torch.cat([path, more, torch.zeros(len(mu), 1)], dim=1).unsqueeze(0)


def path_loss(mu: float, target: float, scale: float, likelihood: str) -> float:
    loss = per_model_loss(
        raw([[mu]], scale), torch.tensor([[[target]]]), torch.ones(1, 1), 0.0, likelihood
    )
    return float(loss)


def test_hubers_sigma_is_a_standard_deviation() -> None:
    """The density that the loss is the negative logarithm of, integrated."""
    x = torch.linspace(-40.0, 40.0, 800_001, dtype=torch.float64)
    density = torch.exp(-torch.nn.functional.huber_loss(x, x * 0, reduction="none"))
    variance = (x * x * density).sum() / density.sum()
    assert pytest.approx(math.sqrt(float(variance)), rel=1e-6) == HUBER_DEVIATION


def test_huber_by_hand() -> None:
    sigma = float(split_outputs(raw([[0.0]])).sigma)
    assert sigma == pytest.approx(1.0 + SIGMA_FLOOR, abs=1e-4)
    near, far = 0.1 * HUBER_DEVIATION / sigma, 4.0 * HUBER_DEVIATION / sigma
    log = math.log(sigma)
    assert path_loss(0.0, 0.1, 0.0, "huber") == pytest.approx(0.5 * near**2 + log, rel=1e-5)
    assert path_loss(0.0, 4.0, 0.0, "huber") == pytest.approx(far - 0.5 + log, rel=1e-5)
    assert path_loss(0.0, 4.0, 0.0, "gaussian") == pytest.approx(0.5 * (4 / sigma) ** 2 + log)


def test_under_huber_a_far_day_pulls_no_harder_than_a_less_far_one() -> None:
    def pull(target: float, likelihood: str) -> float:
        out = raw([[0.0]]).requires_grad_()
        given = torch.tensor([[[target]]])
        per_model_loss(out, given, torch.ones(1, 1), 0.0, likelihood).sum().backward()
        assert out.grad is not None
        return float(out.grad[0, 0, 0])

    far = TARGET_CLIP - 1
    assert pull(far, "huber") == pytest.approx(pull(3.0, "huber"))
    assert pull(far, "gaussian") == pytest.approx(pull(3.0, "gaussian") * far / 3.0)


def ranked(mu: list[float], y: list[float], session: list[int], **more: list[float]) -> float:
    count = len(mu)
    weight = torch.tensor([more.get("weight", [1.0] * count)])
    scale = torch.tensor([more.get("scale", [1.0] * count)])
    given = torch.tensor([[[v] for v in y]])
    return float(
        ranking_loss(raw([[m] for m in mu]), given, weight, torch.tensor([session]), scale)
    )


def test_ranking_by_hand() -> None:
    """Two pairs on day 1 of three; the third window is of another day, the fourth padding."""
    wrong, right = math.log1p(math.exp(1.0)), math.log1p(math.exp(-1.0))
    assert ranked([0.0, 1.0], [2.0, 1.0], [1, 1]) == pytest.approx(wrong)
    assert ranked([1.0, 0.0], [2.0, 1.0], [1, 1]) == pytest.approx(right)
    both = ranked([1.0, 0.0, 9.0], [2.0, 1.0, 5.0], [1, 1, 2])
    assert both == pytest.approx(right), "another day's window is nobody's rival"
    padded = ranked([1.0, 0.0, 9.0], [2.0, 1.0, 0.0], [1, 1, 1], weight=[1.0, 1.0, 0.0])
    assert padded == pytest.approx(right)


def test_ranking_compares_returns_and_not_standardised_ones() -> None:
    """A calm symbol's large surprise is less than a wild one's small one."""
    assert ranked([1.0, 1.0], [2.0, 1.0], [1, 1], scale=[0.25, 1.75]) == pytest.approx(
        math.log1p(math.exp(-1.5))
    )


def test_a_batch_without_a_pair_has_no_ranking_loss_and_no_gradient() -> None:
    out = raw([[1.0], [2.0]]).requires_grad_()
    target, ones = torch.tensor([[[1.0], [2.0]]]), torch.ones(1, 2)
    loss = ranking_loss(out, target, ones, torch.tensor([[1, 2]]), ones)
    loss.sum().backward()
    assert float(loss.detach()) == 0.0
    assert out.grad is not None
    assert not out.grad.any()
