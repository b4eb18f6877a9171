"""Stage train when memory runs out in the middle of a step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.stages.conftest import SPEC, context, happened, rows
from vnquant.spec import RunSpec
from vnquant.stages import run_stage
from vnquant.stages.context import Context
from vnquant.training.stack import Stack

FOUR: RunSpec = SPEC.model_copy(update={"symbols": ("FPT", "HPG", "MBB", "VCB")})


def run_out(monkeypatch: pytest.MonkeyPatch, error: Exception, widest: int) -> None:
    """Steps of more than ``widest`` models fail, but not the first."""
    step = Stack.train_step

    def limited(stack: Stack) -> None:
        if len(stack.models) > widest and stack.inner > 2:
            raise error
        step(stack)

    monkeypatch.setattr(Stack, "train_step", limited)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four symbols with their features, and what training them at once gives."""
    path = tmp_path_factory.mktemp("four") / "w"
    run_stage(context(path, FOUR, stack_width=4), "train")
    return path


@pytest.fixture
def untrained(prepared: Path, tmp_path: Path) -> Context:
    shutil.copytree(prepared, tmp_path / "w")
    ctx = context(tmp_path / "w", FOUR, stack_width=4)
    shutil.rmtree(ctx.stage("train").path)
    return ctx


def test_out_of_memory_halves_the_stack_and_the_models_are_the_same(
    prepared: Path, untrained: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_out(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried ..."), widest=1)
    marker = run_stage(untrained, "train")
    assert marker["failed"] == {}
    assert [e["width"] for e in happened(untrained, "narrowed")] == [2, 1]
    plan = json.loads((untrained.stage("train") / "plan.json").read_text())
    assert [len(unit) for unit in plan["units"]] == [1, 1, 1, 1]
    expected, found = rows(context(prepared, FOUR)), rows(untrained)
    assert set(found) == set(expected)
    for name, row in found.items():
        torch.testing.assert_close(row, expected[name], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("error", "widest"),
    [
        (RuntimeError("shapes do not match"), 2),
        (torch.OutOfMemoryError("not even one model fits"), 0),
    ],
)
def test_what_a_narrower_stack_cannot_mend_is_not_hidden(
    untrained: Context, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, widest: int
) -> None:
    run_out(monkeypatch, error, widest)
    with pytest.raises(type(error), match=str(error)):
        run_stage(untrained, "train")
    assert untrained.stage("train").done() is None
