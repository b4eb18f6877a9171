"""What a training step must cost at least, counted from shapes, and what it costs.

``python -m benchmarks.roofline --device cpu|cuda``. The floor is the larger of two times: the
step's products at the rate of a large product, and its bytes at the rate of a large copy, both
rates measured in the same run. It is a lower bound: it assumes that elementwise work is free and
fused, that arithmetic and memory overlap fully, and that the hidden layer of the feed-forward part
never leaves the chip.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import (
    REPORTS,
    command_line,
    copy_rate,
    in_turns,
    matmul_rate,
    provenance,
    publish,
    table_of,
)
from benchmarks.steps import BATCH, FEATURES, HORIZON, LOOKBACK, stacked_step
from vnquant.spec import PRESETS, ModelSpec
from vnquant.stockformer.layout import Shape
from vnquant.training.kernels import Kernels, choose_kernels

OPTIMISER_BYTES = 32
"""Per parameter: weight, two moments and gradient read, the first three written (28), and the
gradient written before (4); all float32."""


@dataclass(frozen=True)
class Count:
    """One model's training step: operations of its products, and bytes it must move."""

    operations: int
    bytes: int

    def floor(self, operations_rate: float, bytes_rate: float) -> float:
        """Seconds that nothing can beat at these rates."""
        return max(self.operations / operations_rate, self.bytes / bytes_rate)


def count(shape: Shape, batch: int, width: int) -> Count:
    """Count a step of one model.

    Args:
        batch: windows. width: bytes of a value in the computing dtype.

    A product of ``[n, a]`` and ``[a, b]`` is ``2 n a b`` operations, and twice that again in the
    backward pass; the input projection needs no gradient of its input. In bytes, each kernel
    reads its inputs and writes its outputs once: norm + projection, attention, output projection,
    feed-forward; the comments give values per token, forward + backward.
    """
    d, f, t = shape.d_model, shape.d_ff, shape.lookback
    tokens, full = batch * t, shape.layers - 1
    dense = full * tokens * (4 * d * d + 2 * d * f)  # qkv, out, feed-forward
    dense += 2 * tokens * d * d + batch * (2 * d * d + 2 * d * f)  # the last layer: one query
    dense += batch * d * shape.outputs
    attention = full * 2 * batch * t * t * d + 2 * batch * t * d
    operations = 2 * (3 * (dense + attention) + 2 * tokens * shape.features * d)

    values = full * tokens * 32 * d  # 13 d: 4, 4, 3, 2; 19 d: 6, 7, 3, 3
    values += tokens * 13 * d + batch * 32 * d  # the last layer: keys and values of all tokens
    values += tokens * 2 * (shape.features + d)
    own = sum(p.size for p in shape.parameters)
    copies = 0 if width == 4 else width  # the parameters in the computing dtype, written
    return Count(operations, values * width + own * (OPTIMISER_BYTES + copies + 2 * width))


def shape_of(model: ModelSpec, member: int) -> Shape:
    """A member's shape with the features and windows of the benchmarks."""
    return Shape.of(model, member, features=FEATURES, lookback=LOOKBACK, horizon=HORIZON)


def dtype_of(device: str) -> torch.dtype:
    """What models are computed in there."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def kernels_for(shape: Shape, device: str) -> Kernels:
    """What the trainer would take, but plain functions on a CPU without a compiler."""
    return choose_kernels(shape, torch.device(device), dtype_of(device))


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that all measurements of steps have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="base")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each work")
    default = Path(os.environ["OUT"]) if "OUT" in os.environ else REPORTS
    parser.add_argument("--output", type=Path, default=default, help="folder of the report")
    return parser


def measure(device: str, preset: str, models: int, rounds: int) -> dict[str, Any]:
    """One row for each depth of the preset."""
    spec, dtype = PRESETS[preset], dtype_of(device)
    operations_rate, bytes_rate = matmul_rate(device, dtype), copy_rate(device)
    rows = []
    for layers in sorted({m.layers for m in spec.members}):
        member = next(i for i, m in enumerate(spec.members) if m.layers == layers)
        one = spec.model_copy(update={"members": (spec.members[member],)})
        shape = shape_of(one, 0)
        step = stacked_step(one, models, device, dtype, kernels_for(shape, device))
        for _ in range(3):
            step()
        took = sorted(in_turns({"step": step}, device, rounds=rounds)["step"])[rounds // 2]
        counted = count(shape, BATCH, dtype.itemsize)
        floor = models * counted.floor(operations_rate, bytes_rate)
        rows.append(
            {
                "layers": layers,
                "models": models,
                "Gop": round(models * counted.operations / 1e9, 1),
                "GB": round(models * counted.bytes / 1e9, 2),
                "ms of products": round(models * counted.operations / operations_rate * 1e3, 2),
                "ms of bytes": round(models * counted.bytes / bytes_rate * 1e3, 2),
                "floor, ms": round(floor * 1e3, 2),
                "step, ms": round(took * 1e3, 2),
                "share of floor": f"{floor / took:.1%}",
                "TFLOP/s": round(models * counted.operations / took / 1e12, 3),
            }
        )
    return {
        "matmul_tflops": round(operations_rate / 1e12, 3),
        "copy_gb_s": round(bytes_rate / 1e9, 1),
        "rows": rows,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--models", type=int, help="default: 102 on a GPU, 8 on a CPU")
    args = parser.parse_args()
    models = args.models or (102 if args.device == "cuda" else 8)
    result = provenance(args.device) | {"command": command_line("benchmarks.roofline")}
    result |= measure(args.device, args.preset, models, args.rounds)
    rows = result["rows"]
    body = [
        f"In this run a large product ran at {result['matmul_tflops']} TFLOP/s and a copy at"
        f" {result['copy_gb_s']} GB/s.",
        "",
        table_of(rows),
    ]
    publish(args.output, "roofline", result, body)


if __name__ == "__main__":
    main()
