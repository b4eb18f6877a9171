"""The rules of correct stacking, one test each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.conftest import HISTORY, MakeStack, make_data, row_of, run_round
from vnquant.training.data import ModelId
from vnquant.training.ledger import Status

TOLERANCE = 2e-4  # of a weight, after three epochs; documented in docs/stacking.md


@pytest.mark.parametrize("width", [1, 8, 32])
def test_a_model_is_the_same_in_any_stack(make_stack: MakeStack, width: int) -> None:
    history = {f"S{i:02d}": 30 + 7 * (i % 5) for i in range(16)}
    data = make_data(history)
    names = list(history)[: max(1, width // 2)]
    members = (0,) if width == 1 else (0, 1)
    stack = make_stack(names, members, data=data)
    assert len(stack.models) == width
    reference = make_stack(list(history)[:3], (0,), data=data)
    for _ in range(3):
        run_round(stack)
        run_round(reference)
    model = ModelId("S00", 0)
    for name in ("weights", "first", "best"):
        torch.testing.assert_close(
            row_of(stack, model, name), row_of(reference, model, name), rtol=0, atol=TOLERANCE
        )
    assert not torch.equal(
        row_of(stack, model), row_of(make_stack(names, members, data=data), model)
    )


def test_the_same_stack_is_bit_identical(make_stack: MakeStack) -> None:
    one, two = make_stack(), make_stack()
    for _ in range(2):
        run_round(one)
        run_round(two)
    assert torch.equal(one.weights, two.weights)
    assert [e.history for e in one.ledger] == [e.history for e in two.ledger]


def test_gradients_are_clipped_per_model(make_stack: MakeStack) -> None:
    """One symbol with huge gradients must not shrink another's step."""
    data = make_data()
    loud = make_data()
    rows = np.concatenate([loud.train["BBB"], loud.validation["BBB"]])
    loud.targets[rows] *= 6.0
    calm_stack, loud_stack = make_stack(data=data), make_stack(data=loud)
    for stack in (calm_stack, loud_stack):
        for _ in range(4):
            stack.train_step()
    model = ModelId("AAA", 0)
    assert torch.equal(row_of(calm_stack, model), row_of(loud_stack, model))
    other = ModelId("BBB", 0)
    assert not torch.equal(row_of(calm_stack, other), row_of(loud_stack, other))


def test_short_histories_take_their_own_number_of_steps(make_stack: MakeStack) -> None:
    stack = make_stack()
    assert list(stack.steps) == sorted(stack.steps, reverse=True)
    short = ModelId("EEE", 0)
    own = -(-HISTORY["EEE"] // 8)
    for _ in range(own):
        stack.train_step()
    before = row_of(stack, short).clone(), row_of(stack, short, "second").clone()
    while stack.inner < stack.round_steps:
        stack.train_step()
    assert torch.equal(row_of(stack, short), before[0])
    assert torch.equal(row_of(stack, short, "second"), before[1])


def test_a_stopped_model_is_frozen_and_keeps_its_best_slice(make_stack: MakeStack) -> None:
    stack = make_stack(patience=1, epochs=40)
    frozen: dict[ModelId, tuple[torch.Tensor, ...]] = {}
    for _ in range(40):
        if not stack.active:
            break
        run_round(stack)
        for model, entry in zip(stack.models, stack.ledger, strict=True):
            rows = tuple(
                row_of(stack, model, n).clone() for n in ("weights", "first", "second", "best")
            )
            if model in frozen:
                assert all(torch.equal(a, b) for a, b in zip(frozen[model], rows, strict=True))
            elif entry.status != Status.ACTIVE:
                frozen[model] = rows
    assert len(frozen) == len(stack.models)
    stopped = [e for e in stack.ledger if e.status == Status.STOPPED]
    assert stopped
    for entry in stopped:
        losses = [v for _, v in entry.history]
        assert entry.best_loss == min(losses)
        assert entry.best_epoch == losses.index(min(losses))
        assert len(losses) == entry.best_epoch + 2  # patience 1: one worse epoch ends it


def test_best_slice_has_the_best_loss(make_stack: MakeStack) -> None:
    stack = make_stack(epochs=6, patience=None)
    for _ in range(6):
        run_round(stack)
    stack.weights.copy_(stack.best)
    again = stack.validate().loss
    best = torch.tensor([e.best_loss for e in stack.ledger])
    torch.testing.assert_close(again, best, rtol=1e-5, atol=1e-6)


def test_one_diverging_symbol_is_frozen_and_the_others_do_not_notice(make_stack: MakeStack) -> None:
    sick = make_data()
    sick.features[sick.train["BBB"][10]] = torch.nan
    healthy, mixed = make_stack(), make_stack(data=sick)
    for _ in range(3):
        run_round(healthy)
        run_round(mixed)
    for model, entry in zip(mixed.models, mixed.ledger, strict=True):
        if model.symbol == "BBB":
            assert entry.status == Status.DIVERGED
            assert torch.isfinite(row_of(mixed, model)).all()
        else:
            assert entry.status == Status.COMPLETE
            assert torch.equal(row_of(mixed, model), row_of(healthy, model))


def test_training_learns_what_was_planted(make_stack: MakeStack) -> None:
    stack = make_stack(("AAA",), (0,), epochs=30, patience=None)
    first = float(stack.validate().loss[0])
    for _ in range(30):
        run_round(stack)
    assert stack.ledger[0].best_loss is not None
    assert stack.ledger[0].best_loss < first - 0.05
