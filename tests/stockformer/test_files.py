"""Deployed model files: small, checked, and exactly what was judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vnquant.errors import DataError
from vnquant.spec import PRESETS
from vnquant.stockformer.files import MAX_BYTES, decode, encode, load_model, save_model
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.randomness import generator


def shape_of(preset: str, member: int) -> Shape:
    return Shape.of(PRESETS[preset], member, features=50, lookback=60, horizon=5)


def row_of(shape: Shape) -> torch.Tensor:
    return torch.from_numpy(shape.initial_row(generator(0, "FPT", 0, "init")))


@pytest.mark.parametrize(
    ("preset", "member", "storage"),
    [("small", 0, "float32"), ("base", 0, "float16"), ("base", 1, "int8"), ("base", 2, "int8")],
)
def test_widest_storage_that_stays_under_two_megabytes(
    preset: str, member: int, storage: str, tmp_path: Path
) -> None:
    shape = shape_of(preset, member)
    path = tmp_path / "FPT.m0.safetensors"
    meta = save_model(path, shape, row_of(shape), {"symbol": "FPT", "member": member})
    assert meta["storage"] == storage
    assert path.stat().st_size == meta["bytes"] <= MAX_BYTES == 2_000_000
    loaded = load_model(path)
    assert loaded.shape == shape
    assert loaded.meta == json.loads(path.with_suffix(".json").read_text())
    limit = {"float32": 0.0, "float16": 1e-3, "int8": 2e-2}[storage]
    error = (loaded.row - row_of(shape)).norm() / row_of(shape).norm()
    assert float(error) <= limit


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_decoding_twice_is_stable(storage: str) -> None:
    shape = shape_of("small", 0)
    once = decode(shape, encode(shape, row_of(shape), storage))
    twice = decode(shape, encode(shape, once, storage))
    # int8 scales are recomputed from rounded values: equal up to one rounding of the scale.
    np.testing.assert_allclose(once, twice, rtol=1e-6, atol=0)


def test_damage_is_found(tmp_path: Path) -> None:
    shape, path = shape_of("small", 0), tmp_path / "FPT.m0.safetensors"
    save_model(path, shape, row_of(shape), {"symbol": "FPT", "member": 0})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        load_model(path)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_model(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(DataError, match="metadata"):
        load_model(path)
