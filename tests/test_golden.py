"""Files written by an earlier version must stay readable, and mean the same."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vnquant.errors import DataError
from vnquant.inference.deployed import open_deployed
from vnquant.registry import Registry
from vnquant.stockformer.files import STORAGES, decode, encode, load_model, save_model
from vnquant.training.checkpoint import Checkpoints
from vnquant.workspace import Workspace

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_make"] = module
    spec.loader.exec_module(module)
    return module


def test_the_checkpoint_resumes_to_the_end(make: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(make.CHECKPOINT, tmp_path / "c")
    checkpoints = Checkpoints(tmp_path / "c", make.DIGEST)
    places = checkpoints.places()
    assert set(places) == set(make.IDS)
    stack = make.new_stack()
    checkpoints.restore(stack, places)
    assert (stack.epoch, stack.inner) == (make.SAVED_AFTER, 0)
    make.train(stack, make.TRAINING.epochs)
    final = json.loads((make.CHECKPOINT / "final.txt").read_text())
    # Another processor or torch may round differently, and AdamW carries that on. Noise of 1e-6 of
    # every weight at every step ended in 3e-6 of the weights and 4e-7 of the losses.
    found = torch.stack([row[::37] for row in stack.weights])
    torch.testing.assert_close(found, torch.tensor(final["weights"]), atol=5e-5, rtol=0)
    history = torch.tensor([entry.history for entry in stack.ledger])
    torch.testing.assert_close(history, torch.tensor(final["history"]), atol=1e-5, rtol=0)


def test_the_checkpoint_was_half_way(make: ModuleType) -> None:
    """Without the checkpoint's state the same steps lead elsewhere: the test above can fail."""
    stack = make.new_stack()
    stack.initialise()
    make.train(stack, make.SAVED_AFTER)
    final = json.loads((make.CHECKPOINT / "final.txt").read_text())
    found = torch.stack([row[::37] for row in stack.weights])
    assert (found - torch.tensor(final["weights"])).abs().max() > 2e-3


def test_the_checkpoints_fields_are_frozen(make: ModuleType) -> None:
    meta = json.loads((make.CHECKPOINT / "000001.json").read_text())
    assert set(meta) == {
        *("format", "spec_digest", "epoch", "inner", "compacting", "models", "ledger", "sha256")
    }
    stack = make.new_stack()
    stack.initialise()
    # The score came later, and is read from a file without it as what it was then: the loss.
    assert set(stack.ledger[0].to_dict()) == set(meta["ledger"][0]) | {"best_score"}


@pytest.mark.parametrize("storage", STORAGES)
def test_a_model_says_the_same_as_when_it_was_saved(make: ModuleType, storage: str) -> None:
    model = load_model(make.MODELS / f"{storage}.safetensors")
    assert model.meta["storage"] == storage
    expected = json.loads((make.MODELS / "outputs.txt").read_text())[storage]
    found = torch.tensor(make.outputs(model.row))
    torch.testing.assert_close(found, torch.tensor(expected), atol=5e-6, rtol=0)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_models_fields_are_frozen(make: ModuleType, tmp_path: Path, storage: str) -> None:
    meta = load_model(make.MODELS / f"{storage}.safetensors").meta
    own = {"symbol", "member", "history"}
    fields = {"format", "shape", "storage", "bytes", "sha256"}
    sizes = {"features", "lookback", "horizon", "d_model", "heads", "d_ff", "layers"}
    assert set(meta) == own | fields
    assert set(meta["shape"]) == sizes
    row = load_model(make.MODELS / "float32.safetensors").row
    today = save_model(tmp_path / "AAA.m0.safetensors", make.SHAPE, row, {})
    assert set(today) == fields
    assert set(today["shape"]) == sizes


def test_a_model_is_encoded_as_it_was(make: ModuleType) -> None:
    row = load_model(make.MODELS / "float32.safetensors").row
    for storage in STORAGES:
        content = (make.MODELS / f"{storage}.safetensors").read_bytes()
        assert torch.equal(
            decode(make.SHAPE, encode(make.SHAPE, row, storage)), decode(make.SHAPE, content)
        )


def test_the_registry_is_whole_and_can_be_rolled_back(make: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(make.REGISTRY, tmp_path / "registry")
    registry = Registry(tmp_path / "registry")
    assert registry.verify() == []
    newest, oldest = registry.sets()
    current = registry.current()
    assert current == newest
    assert (newest.meta["forced"], newest.meta["force_reason"]) == (True, "golden")
    assert (oldest.meta["forced"], oldest.meta["force_reason"]) == (False, None)
    ready = open_deployed(Workspace(tmp_path))
    assert ready.symbols == ["AAA"]
    assert ready.variant == "eager"
    assert load_model(ready.models / "AAA.m0.safetensors").meta["storage"] == "int8"
    assert registry.rollback() == oldest.set_id
    ready = open_deployed(Workspace(tmp_path))
    assert load_model(ready.models / "AAA.m0.safetensors").meta["storage"] == "float32"
    assert [e["action"] for e in registry.journal()] == ["promote", "promote", "rollback"]


def test_the_registrys_fields_are_frozen(make: ModuleType, tmp_path: Path) -> None:
    kept = Registry(make.REGISTRY).sets()[0]
    source = tmp_path / "source"
    shutil.copytree(kept.path, source)
    (source / "set.json").unlink()
    registry = Registry(tmp_path / "registry")
    registry.promote(source, {"run_id": "x", "symbols": [], "inference": "eager"}, {"passed": True})
    today = registry.sets()[0]
    assert set(today.meta) == set(kept.meta)
    assert today.meta["content"] == kept.meta["content"]
    assert today.meta["files"] == kept.meta["files"]
    pointers = [
        json.loads((r / "current.json").read_text()) for r in (make.REGISTRY, registry.root)
    ]
    assert set(pointers[0]) == set(pointers[1])


def test_one_damaged_byte_of_a_set_is_found(make: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(make.REGISTRY, tmp_path / "registry")
    registry = Registry(tmp_path / "registry")
    path = registry.sets()[0].path / "models" / "AAA.m0.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (problem,) = registry.verify()
    assert "models/AAA.m0.safetensors" in problem


@pytest.mark.parametrize("where", [-1, 300])
def test_one_damaged_byte_is_found(make: ModuleType, tmp_path: Path, where: int) -> None:
    shutil.copytree(make.MODELS, tmp_path / "m")
    path = tmp_path / "m" / "float16.safetensors"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        load_model(path)
    shutil.copytree(make.CHECKPOINT, tmp_path / "c")
    tensors = tmp_path / "c" / "000001.safetensors"
    content = bytearray(tensors.read_bytes())
    content[where] ^= 1
    tensors.write_bytes(content)
    assert Checkpoints(tmp_path / "c", make.DIGEST).places() == {}
