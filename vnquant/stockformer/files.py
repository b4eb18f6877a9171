"""A trained model on disk: one safetensors file of at most 2 MB, and JSON metadata beside it.

The weights are stored in the widest of float32, float16 and int8 (one scale per output column)
whose file stays under the limit, and whatever is read back is what gets evaluated: the judged
model is the deployed model, bit for bit. No pickle is ever written or read.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vnquant.errors import DataError
from vnquant.stockformer.layout import Shape
from vnquant.workspace import read_json, write_bytes, write_json

FORMAT = 1
MAX_BYTES = 2_000_000
STORAGES = ("float32", "float16", "int8")


@dataclass(frozen=True)
class ModelFile:
    """One model as it is deployed.

    Attributes:
        row: float32 ``[P]`` in the order of ``shape.parameters``.
        meta: the JSON beside the weights: symbol, member, scaler, provenance.
    """

    shape: Shape
    row: torch.Tensor
    meta: dict[str, Any]

    @property
    def symbol(self) -> str:
        return str(self.meta["symbol"])

    @property
    def member(self) -> int:
        return int(self.meta["member"])


def encode(shape: Shape, row: torch.Tensor, storage: str) -> bytes:
    """Serialise one row as safetensors bytes in the given storage type."""
    # By NumPy: many models are written side by side, and threads that each start a team of
    # OpenMP threads for a small tensor get in each other's way.
    tensors: dict[str, np.ndarray] = {}
    for name, value in shape.views(row.detach().unsqueeze(0)).items():
        tensor = np.ascontiguousarray(value[0].numpy())
        if storage == "int8" and tensor.ndim == 2:
            scale = np.maximum(np.abs(tensor).max(0), np.float32(1e-12)) / np.float32(127.0)
            tensors[name] = np.rint(tensor / scale).astype(np.int8)
            tensors[f"{name}.scale"] = scale
        elif storage == "float16" and tensor.ndim == 2:
            tensors[name] = tensor.astype(np.float16)
        else:
            tensors[name] = tensor
    return save(tensors, metadata={"format": "pt"})


def least_bytes(shape: Shape, storage: str) -> int:
    """Bytes of the tensors alone, without the file's header."""
    width = {"float32": 4, "float16": 2, "int8": 1}[storage]
    matrices = [p for p in shape.parameters if len(p.shape) == 2]
    rest = sum(p.size for p in shape.parameters) - sum(p.size for p in matrices)
    scales = sum(p.shape[1] for p in matrices) if storage == "int8" else 0
    return width * sum(p.size for p in matrices) + 4 * (rest + scales)


def decode(shape: Shape, content: bytes) -> torch.Tensor:
    """The row float32 ``[P]`` of `encode`'s bytes.

    Raises:
        KeyError, ValueError, SafetensorError: the bytes are not a model of this shape.
    """
    tensors = load(content)
    row = np.zeros(shape.row, dtype=np.float32)
    for p in shape.parameters:
        value = tensors[p.name].astype(np.float32)
        if value.shape != p.shape:
            raise ValueError(f"{p.name} has shape {value.shape}, expected {p.shape}")
        if f"{p.name}.scale" in tensors:
            value = value * tensors[f"{p.name}.scale"]
        row[p.offset : p.offset + p.size] = value.ravel()
    return torch.from_numpy(row)


def save_model(
    path: Path,
    shape: Shape,
    row: torch.Tensor,
    meta: dict[str, Any],
    max_bytes: float = MAX_BYTES,
) -> dict[str, Any]:
    """Write ``path`` (.safetensors) and then its JSON, which makes the model complete.

    Args:
        max_bytes: of the weights' file; infinity for weights that others start from.

    Returns:
        The metadata as written, with shape, storage type, size and sha256 added.
    """
    row = row.detach().float().cpu()
    for storage in STORAGES:
        if least_bytes(shape, storage) > max_bytes:
            continue
        content = encode(shape, row, storage)
        if len(content) <= max_bytes:
            break
    else:
        raise DataError(
            f"the model needs {least_bytes(shape, 'int8'):,} bytes even as int8, "
            f"over {max_bytes:,}",
            where=path.name,
            fix="choose fewer layers or a smaller d_model",
        )
    full = {
        "format": FORMAT,
        **meta,
        # A model whose inputs do not fade has the metadata that it always had.
        "shape": {name: value for name, value in asdict(shape).items() if value is not None},
        "storage": storage,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_bytes(path, content)
    write_json(path.with_suffix(".json"), full)
    return full


def load_model(path: Path) -> ModelFile:
    """Read a model back and verify it.

    Raises:
        DataError: a file is missing, damaged, or of another format.
    """
    fix = "run `vnquant registry verify`, then retrain or roll back"
    meta = read_json(path.with_suffix(".json"))
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError("metadata is missing or unreadable", where=str(path), fix=fix)
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != meta["sha256"]:
            raise DataError("weights do not match their checksum", where=str(path), fix=fix)
        shape = Shape(**meta["shape"])
        return ModelFile(shape, decode(shape, content), meta)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise DataError(f"cannot be read ({error})", where=str(path), fix=fix) from error
