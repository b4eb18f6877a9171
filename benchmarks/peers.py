"""Our stacked step beside its peers, in one run: ``python -m benchmarks.peers --device cpu|cuda``.

The same encoder, batch, optimiser and clipping in several ways (stacked: as the trainer does where
it compiles, through autograd compiled and eager; a loop over symbols, eager and compiled;
`torch.func` vmap), taking turns, so that ratios of one round are fair on a busy
machine. For context, not of the same network: neuralforecast's loop over series with its nearest
encoder, and LightGBM per symbol. What is not installed or does not run here is named with its
reason. TFLOP/s count the operations that our network needs (`benchmarks.roofline`), whoever
computes them: a peer that also computes what nobody reads gets no credit for that.
"""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks import peer_steps
from benchmarks.record import (
    command_line,
    in_turns,
    large_product,
    median_ratio,
    provenance,
    publish,
    table,
    table_of,
)
from benchmarks.roofline import count, dtype_of, kernels_for, options, shape_of
from benchmarks.steps import BATCH, plain_step, stacked_step
from vnquant.accelerators.cpu import keep_freed_memory
from vnquant.manifest import package_versions
from vnquant.spec import PRESETS, ModelSpec
from vnquant.training.kernels import PLAIN_KERNELS, compiled_kernels

OURS, PRODUCT = "stacked", "large product"
WINDOWS_PER_EPOCH, EPOCHS = 1984, 100
"""A fleet's usual run: 62 steps of 32 windows, 100 times (for what a whole symbol costs)."""
Step = Callable[[], None]


def contestants(
    model: ModelSpec, models: int, loop: int, device: str
) -> dict[str, tuple[int, Callable[[], Step]]]:
    """Name to how many models it trains at a time and what makes its step."""
    dtype = dtype_of(device)
    kernels = kernels_for(shape_of(model, 0), device)
    both = (model, loop, device, dtype)
    return {
        OURS: (models, lambda: stacked_step(model, models, device, dtype, kernels)),
        "stacked, compiled autograd": (
            models,
            lambda: stacked_step(model, models, device, dtype, compiled_kernels()),
        ),
        "stacked, eager": (
            models,
            lambda: stacked_step(model, models, device, dtype, PLAIN_KERNELS),
        ),
        "torch.func vmap": (
            models,
            lambda: peer_steps.vmap_step(model, models, device, dtype),
        ),
        "loop over symbols, eager": (loop, lambda: plain_step(*both)),
        "loop over symbols, compiled": (
            loop,
            lambda: plain_step(*both, wrap=lambda net: peer_steps.compiled(net, device)),
        ),
    }


def reason(error: Exception) -> str:
    """Why a peer is left out, in one line."""
    lines = str(error).splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:160]}"


def prepare(
    made: dict[str, tuple[int, Callable[[], Step]]],
) -> tuple[dict[str, Step], dict[str, str]]:
    """The steps that run here, warmed up, and why the others do not."""
    steps: dict[str, Step] = {}
    skipped: dict[str, str] = {}
    for name, (_, make) in made.items():
        print(f"warming up: {name}", file=sys.stderr, flush=True)
        try:
            step = make()
            for _ in range(3):
                step()
        except Exception as error:  # a peer's fault must not cost the others their turn
            if name == OURS:
                raise
            skipped[name] = reason(error)
        else:
            steps[name] = step
    return steps, skipped


def compare(model: ModelSpec, models: int, loop: int, device: str, rounds: int) -> dict[str, Any]:
    """A row for each way to train the same encoder; times are per model and step."""
    made = contestants(model, models, loop, device)
    steps, skipped = prepare(made)
    # The product takes its turns too: on a busy machine its rate is no steadier than a step's.
    product_operations, product = large_product(device, dtype_of(device))
    product()
    times = in_turns({**steps, PRODUCT: product}, device, rounds=rounds)
    products = times.pop(PRODUCT)
    each = {name: [t / made[name][0] for t in found] for name, found in times.items()}
    operations = count(shape_of(model, 0), BATCH, dtype_of(device).itemsize).operations
    rows = []
    for name, found in each.items():
        middle = statistics.median(found)
        share = operations / product_operations * median_ratio(products, found)
        rows.append(
            {
                "way": name,
                "models": made[name][0],
                "ms per model-step": round(middle * 1e3, 3),
                "least": round(min(found) * 1e3, 3),
                "most": round(max(found) * 1e3, 3),
                "times ours": round(median_ratio(found, each[OURS]), 2),
                "TFLOP/s": round(operations / middle / 1e12, 4),
                "share of matmul rate": f"{share:.1%}",
            }
        )
    return {
        "matmul_tflops": round(product_operations / statistics.median(products) / 1e12, 3),
        "rows": rows,
        "skipped": skipped,
        "ours_seconds": statistics.median(each[OURS]),
    }


def context(model: ModelSpec, device: str, ours: float, steps: int) -> dict[str, Any]:
    """neuralforecast and LightGBM beside what one of our models costs in the same run."""
    whole = ours * EPOCHS * -(-WINDOWS_PER_EPOCH // BATCH)
    found: dict[str, Any] = {"ours, s per symbol": round(whole, 3)}
    reasons: dict[str, str] = {}
    try:
        other = peer_steps.neuralforecast_seconds(model, device, steps=steps)
        found["neuralforecast PatchTST, ms per step"] = round(other["step"] * 1e3, 2)
        found["neuralforecast, set-up of a fit, s"] = round(other["set_up"], 3)
        found["neuralforecast step, times ours"] = round(other["step"] / ours, 2)
    except Exception as error:  # absent, or it does not run here
        reasons["neuralforecast"] = reason(error)
    try:
        took = peer_steps.lightgbm_seconds()
        found["LightGBM, 5 x 100 trees, s per symbol"] = round(took, 3)
    except Exception as error:
        reasons["LightGBM"] = reason(error)
    return {"found": found, "skipped": reasons}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--models", type=int, help="default: 102 on a GPU, 8 on a CPU")
    parser.add_argument("--loop", type=int, default=4, help="models of the loops over symbols")
    parser.add_argument("--steps", type=int, default=20, help="of neuralforecast's shorter fit")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    if args.device == "cpu":
        keep_freed_memory()  # as the trainer does; it holds for every way alike
    model, models = PRESETS[args.preset], args.models or (102 if args.device == "cuda" else 8)
    result = provenance(args.device) | {"command": command_line("benchmarks.peers")}
    result |= {"preset": args.preset, "peers": package_versions(("neuralforecast", "lightgbm"))}
    result |= compare(model, models, args.loop, args.device, args.rounds)
    result["context"] = context(model, args.device, result["ours_seconds"], args.steps)
    publish(args.output, "peers", result, page(result))


def page(result: dict[str, Any]) -> list[str]:
    """The report's lines."""
    rows, beside = result["rows"], result["context"]
    versions = ", ".join(f"{k} {v or 'absent'}" for k, v in result["peers"].items())
    skipped = result["skipped"] | beside["skipped"]
    return [
        f"Preset `{result['preset']}`, first member, batch {BATCH}; {versions}. A large product"
        f" ran at {result['matmul_tflops']} TFLOP/s in this run. `times ours` and the share of its"
        " rate are medians of the ratios within a round.",
        "",
        table_of(rows),
        "",
        "For context, other networks (a symbol of ours: 62 steps, 100 epochs, at the cost above):",
        "",
        table(["what", "measured"], list(beside["found"].items())),
        *[f"\nSkipped: {name} ({reason})." for name, reason in skipped.items()],
    ]


if __name__ == "__main__":
    main()
