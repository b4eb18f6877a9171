"""Cost per model from M = 102 to M = 1,000: ``python -m benchmarks.flatness --device cpu|cuda``.

Every M is trained as the trainer would: in equal stacks, as few as fit in memory. A size that does
not fit after all is reported as such.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.record import command_line, in_turns, provenance, publish, table_of
from benchmarks.roofline import dtype_of, kernels_for, options, shape_of
from benchmarks.steps import BATCH, stacked_step
from vnquant.spec import PRESETS
from vnquant.training.memory import (
    choose_width,
    is_out_of_memory,
    memory_limit,
    release_memory,
)

SIZES = (102, 204, 306, 510, 1000)


def row(device: str, preset: str, models: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per model of one step at one M."""
    spec, dtype = PRESETS[preset], dtype_of(device)
    shape = shape_of(spec, 0)
    fits = choose_width(shape, BATCH, dtype, torch.device(device), memory_limit())
    stacks = -(-models // fits)
    width = -(-models // stacks)
    found: dict[str, Any] = {"models": models, "stacks": stacks, "width": width}
    try:
        step = stacked_step(spec, width, device, dtype, kernels_for(shape, device))
        for _ in range(3):
            step()
        times = sorted(in_turns({"step": step}, device, rounds=rounds)["step"])
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return found | {"ms per model": None}
    finally:
        step = None
        release_memory()
    return found | {
        "ms per model": round(times[rounds // 2] / width * 1e3, 4),
        "from": round(times[0] / width * 1e3, 4),
        "to": round(times[-1] / width * 1e3, 4),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    args = parser.parse_args()
    rows = [row(args.device, args.preset, models, args.rounds) for models in args.sizes]
    measured = [r["ms per model"] for r in rows if r["ms per model"] is not None]
    result = provenance(args.device) | {"command": command_line("benchmarks.flatness")}
    result |= {"preset": args.preset, "rows": rows}
    body = [table_of(rows), ""]
    if measured:
        spread = max(abs(v / measured[0] - 1) for v in measured)
        result["largest_difference_from_first"] = round(spread, 4)
        body.append(f"Largest difference from the first row: {spread:.1%} (target: 10 %).")
    publish(args.output, "flatness", result, body)


if __name__ == "__main__":
    main()
