"""Write the golden files: ``python tests/golden/make.py WHAT...``.

WHAT is checkpoint, models or registry. They were written once, by version 0.1.0, and are read by
every later one (tests/test_golden.py). Write them anew only together with a new FORMAT number,
under a new name, and keep the old ones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vnquant.registry import Registry
from vnquant.spec import MemberSpec, ModelSpec, TrainingSpec
from vnquant.stockformer.files import STORAGES, decode, encode, save_model
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.model import forward
from vnquant.training.checkpoint import Checkpoints
from vnquant.training.data import ModelId, TrainingData
from vnquant.training.stack import Stack

HERE = Path(__file__).resolve().parent
CHECKPOINT, MODELS, REGISTRY = HERE / "checkpoint-v1", HERE / "model-v1", HERE / "registry-v1"
DIGEST = hashlib.sha256(b"golden").hexdigest()
MODEL = ModelSpec(d_model=8, heads=2, d_ff=16, members=(MemberSpec(layers=2, dropout=0.1),))
TRAINING = TrainingSpec(epochs=4, batch_size=8, learning_rate=3e-3, patience=None)
SHAPE = Shape.of(MODEL, 0, features=4, lookback=6, horizon=2)
IDS = [ModelId("AAA", 0), ModelId("BBB", 0)]
SAVED_AFTER = 2


def data() -> TrainingData:
    """Two symbols of random numbers from a generator that numpy promises never to change."""
    rng = np.random.Generator(np.random.PCG64(7))
    rows = 80
    return TrainingData(
        torch.from_numpy(rng.random((2 * rows, 4)).astype(np.float32) - 0.5),
        torch.from_numpy(rng.random((2 * rows, 2)).astype(np.float32) - 0.5),
        {"AAA": np.arange(5, 45), "BBB": rows + np.arange(5, 38)},
        {"AAA": np.arange(60, 70), "BBB": rows + np.arange(60, 70)},
        6,
    )


def new_stack() -> Stack:
    return Stack(SHAPE, IDS, MODEL, TRAINING, data())


def train(stack: Stack, epochs: int) -> None:
    """Go on until ``epochs`` are finished."""
    while stack.epoch < epochs:
        for _ in range(stack.round_steps):
            stack.train_step()
        stack.end_round()


def windows() -> torch.Tensor:
    rng = np.random.Generator(np.random.PCG64(8))
    return torch.from_numpy(rng.random((1, 3, 6, 4)).astype(np.float32) - 0.5)


def outputs(row: torch.Tensor) -> Any:
    with torch.no_grad():
        return forward(SHAPE, row.unsqueeze(0), windows())[0].tolist()


def make_checkpoint() -> None:
    CHECKPOINT.mkdir(exist_ok=True)
    stack = new_stack()
    stack.initialise()
    train(stack, SAVED_AFTER)
    Checkpoints(CHECKPOINT, DIGEST).save(stack)
    train(stack, TRAINING.epochs)
    final = {
        "weights": [[float(v) for v in row[::37]] for row in stack.weights],
        "history": [entry.history for entry in stack.ledger],
    }
    (CHECKPOINT / "final.txt").write_text(json.dumps(final) + "\n")


def make_models() -> None:
    MODELS.mkdir(exist_ok=True)
    stack = new_stack()
    stack.initialise()
    train(stack, TRAINING.epochs)
    expected = {}
    row = stack.best[0].clone()
    for storage in STORAGES:
        path = MODELS / f"{storage}.safetensors"
        meta = save_model(path, SHAPE, row, {"symbol": "AAA", "member": 0, "history": []})
        if storage != meta["storage"]:
            # So small a model is always stored as float32; these are what a large one becomes.
            content = encode(SHAPE, row, storage)
            path.write_bytes(content)
            meta |= {
                "storage": storage,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            path.with_suffix(".json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")
        expected[storage] = outputs(decode(SHAPE, path.read_bytes()))
    (MODELS / "outputs.txt").write_text(json.dumps(expected) + "\n")


def make_registry() -> None:
    """Two sets of one model each, as stage deploy lays them out; the second one by force."""
    registry = Registry(REGISTRY)
    passed, refused = ({"passed": p, "reason": "golden"} for p in (True, False))
    for storage, gate in (("float32", passed), ("int8", refused)):
        with tempfile.TemporaryDirectory() as folder:
            models = Path(folder) / "models"
            models.mkdir()
            for suffix in (".safetensors", ".json"):
                source = MODELS / f"{storage}{suffix}"
                shutil.copyfile(source, models / f"AAA.m0{suffix}")
            shutil.copyfile(HERE / "spec-v1.json", Path(folder) / "spec.json")
            meta = {"run_id": "golden", "symbols": ["AAA"], "inference": "eager"}
            registry.promote(Path(folder), meta, gate, force=True, force_reason="golden")
    (REGISTRY / "lock").unlink()
    (REGISTRY / "incoming").rmdir()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        {"checkpoint": make_checkpoint, "models": make_models, "registry": make_registry}[name]()
