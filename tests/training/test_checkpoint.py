"""Checkpoints: whole or absent, readable model by model, exact on resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.conftest import MakeStack, row_of, run_round
from vnquant.training.checkpoint import Checkpoints, group_by_position
from vnquant.training.data import ModelId


@pytest.mark.parametrize("steps", [0, 1, 7, 11])
def test_resume_in_the_middle_of_an_epoch_is_bit_identical(
    make_stack: MakeStack, tmp_path: Path, steps: int
) -> None:
    straight = make_stack()
    for _ in range(3):
        run_round(straight)
    first = make_stack()
    run_round(first)
    for _ in range(steps):
        first.train_step()
    checkpoints = Checkpoints(tmp_path, "spec")
    checkpoints.save(first)
    resumed = make_stack(fresh=False)
    checkpoints.restore(resumed, checkpoints.places())
    assert (resumed.epoch, resumed.inner) == (1, steps)
    while resumed.epoch < 3:
        run_round(resumed)
    for name in ("weights", "first", "second", "best"):
        assert torch.equal(getattr(resumed, name), getattr(straight, name))
    assert [e.to_dict() for e in resumed.ledger] == [e.to_dict() for e in straight.ledger]


def test_a_slice_resumes_in_a_narrower_stack(make_stack: MakeStack, tmp_path: Path) -> None:
    wide = make_stack()
    run_round(wide)
    checkpoints = Checkpoints(tmp_path, "spec")
    checkpoints.save(wide)
    narrow = make_stack(("CCC",), (1,), fresh=False)
    checkpoints.restore(narrow, checkpoints.places())
    model = ModelId("CCC", 1)
    assert torch.equal(row_of(narrow, model), row_of(wide, model))
    while narrow.epoch < 3:
        run_round(narrow)
    while wide.epoch < 3:
        run_round(wide)
    torch.testing.assert_close(row_of(narrow, model), row_of(wide, model), rtol=0, atol=2e-4)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    make_stack: MakeStack, tmp_path: Path
) -> None:
    stack = make_stack()
    checkpoints = Checkpoints(tmp_path, "spec")
    run_round(stack)
    old = checkpoints.save(stack)
    run_round(stack)
    new = checkpoints.save(stack)
    assert {p.checkpoint for p in Checkpoints(tmp_path, "spec").places().values()} == {new}
    tensors = new.with_suffix(".safetensors")
    content = bytearray(tensors.read_bytes())
    content[-5] ^= 255
    tensors.write_bytes(content)
    assert {p.checkpoint for p in Checkpoints(tmp_path, "spec").places().values()} == {old}
    tensors.write_bytes(content[: len(content) // 2])
    assert {p.checkpoint for p in Checkpoints(tmp_path, "spec").places().values()} == {old}
    tensors.unlink()
    assert {p.checkpoint for p in Checkpoints(tmp_path, "spec").places().values()} == {old}
    assert Checkpoints(tmp_path, "another spec").places() == {}


def test_prune_keeps_two_versions_of_every_unfinished_model(
    make_stack: MakeStack, tmp_path: Path
) -> None:
    stack = make_stack()
    checkpoints = Checkpoints(tmp_path, "spec")
    for _ in range(4):
        checkpoints.save(stack)
    (tmp_path / "000099.safetensors").write_bytes(b"left by a kill before its JSON")
    checkpoints.prune([])
    assert sorted(p.stem for p in tmp_path.glob("*.json")) == ["000003", "000004"]
    assert sorted(p.stem for p in tmp_path.glob("*.safetensors")) == ["000003", "000004"]
    checkpoints.prune(stack.models)
    assert list(tmp_path.glob("[!l]*")) == []


def test_models_at_different_positions_do_not_share_a_stack(
    make_stack: MakeStack, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path, "spec")
    one = make_stack(("AAA",), (0,))
    run_round(one)
    checkpoints.save(one)
    models = [ModelId("AAA", 0), ModelId("BBB", 0)]
    groups = group_by_position(models, checkpoints.places())
    assert groups == {(1, 0, False): [models[0]], (0, 0, False): [models[1]]}
