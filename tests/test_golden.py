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
from vnquant.stockformer.files import STORAGES, load_model
from vnquant.training.checkpoint import Checkpoints

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
    # Another processor or torch may round differently; 19 steps of AdamW carry that on.
    found = torch.stack([row[::37] for row in stack.weights])
    torch.testing.assert_close(found, torch.tensor(final["weights"]), atol=2e-4, rtol=0)
    history = torch.tensor([entry.history for entry in stack.ledger])
    torch.testing.assert_close(history, torch.tensor(final["history"]), atol=1e-4, rtol=0)


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
    assert set(stack.ledger[0].to_dict()) == set(meta["ledger"][0])


@pytest.mark.parametrize("storage", STORAGES)
def test_a_model_says_the_same_as_when_it_was_saved(make: ModuleType, storage: str) -> None:
    model = load_model(make.MODELS / f"{storage}.safetensors")
    assert model.meta["storage"] == storage
    expected = json.loads((make.MODELS / "outputs.txt").read_text())[storage]
    found = torch.tensor(make.outputs(model.row))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


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
