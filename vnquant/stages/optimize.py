"""Stage optimize: which way of running the models is fastest and still says the same."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from vnquant.evaluation import metrics
from vnquant.inference.predictor import eager, load_models, predict, with_outcomes
from vnquant.inference.variants import VARIANTS
from vnquant.stages.context import Context
from vnquant.workspace import write_bytes, write_json

WINDOWS = 64
"""Newest test windows of each symbol that the variants are compared on."""
REPEATS = 5


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return ctx.of_these_models(marker)


def run(ctx: Context) -> dict[str, Any]:
    symbols: list[str] = ctx.marker("train")["symbols"]
    ends = {w.symbol: w.test[-WINDOWS:] for w in ctx.windows_of(symbols) if len(w.test)}
    models = load_models(ctx.stage("train") / "models", ends)
    device = torch.device("cpu")  # deployed forecasts are made on ordinary machines
    latest = {s: e[-1:] for s, e in ends.items()}
    rows: list[dict[str, Any]] = []
    reference: dict[str, Any] = {}
    for number, (name, build) in enumerate(VARIANTS.items()):
        ctx.events.progress("optimize", number, len(VARIANTS), name)
        try:
            table = predict(models, ctx.panel, ends, device=device, build=build)
        except Exception as error:
            # A machine without a C++ compiler, or a torch without the quantiser: say so, go on.
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
            rows.append({"variant": name, "available": False, "reason": reason})
            continue
        quality = _quality(ctx, table, ends)
        if build is eager:
            reference = quality
        rows.append(
            {
                "variant": name,
                "available": True,
                **_speed(ctx, models, latest, ends, name),
                **quality,
                "accuracy_change": _change(quality, reference, "accuracy"),
                "rank_ic_change": _change(quality, reference, "rank_ic"),
            }
        )
    limits = ctx.spec.optimize
    for row in rows:
        row["within_tolerance"] = bool(
            row["available"]
            and abs(row["accuracy_change"]) <= limits.max_accuracy_change
            and abs(row["rank_ic_change"]) <= limits.max_rank_ic_change
        )
    chosen = min((r for r in rows if r["within_tolerance"]), key=lambda r: r["latency_ms"])
    stage = ctx.stage("optimize")
    result = {"chosen": chosen["variant"], "tolerance": limits.model_dump(), "variants": rows}
    write_json(stage / "inference.json", result)
    write_bytes(stage / "inference.md", to_markdown(result).encode())
    ctx.events.progress("optimize", len(VARIANTS), len(VARIANTS))
    return {
        "symbols": symbols,
        "snapshot": ctx.marker("train")["snapshot"],
        "chosen": chosen["variant"],
        "failed": {},
        "provenance": {"device": "cpu", "threads": torch.get_num_threads()},
    }


def _quality(ctx: Context, table: Any, ends: dict[str, np.ndarray]) -> dict[str, Any]:
    judged = with_outcomes(table, ctx.panel, ends)
    pooled = metrics.point_metrics(judged)
    return {"accuracy": pooled["accuracy"], "rank_ic": pooled["rank_ic"]}


def _change(here: dict[str, Any], reference: dict[str, Any], key: str) -> float:
    """Difference to eager; an undefined figure (one window, say) counts as unchanged in both."""
    if here[key] is None or reference[key] is None:
        return 0.0 if here[key] == reference[key] else float("inf")
    return float(here[key] - reference[key])


def _speed(
    ctx: Context,
    models: Any,
    latest: dict[str, np.ndarray],
    ends: dict[str, np.ndarray],
    name: str,
) -> dict[str, float]:
    """Median time of a whole forecast round, and model windows per second on the larger set."""
    build = VARIANTS[name]
    predict(models, ctx.panel, latest, build=build)  # compiles, allocates
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        predict(models, ctx.panel, latest, build=build)
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    predict(models, ctx.panel, ends, build=build)
    busy = time.perf_counter() - began
    count = sum(len(ends[m.symbol]) for m in models)
    return {
        "latency_ms": round(float(np.median(times)) * 1e3, 3),
        "windows_per_second": round(count / busy, 1),
    }


def to_markdown(result: dict[str, Any]) -> str:
    """The table people read."""
    lines = [
        "# Inference variants",
        "",
        f"Chosen: **{result['chosen']}**, the fastest within tolerance "
        f"(accuracy {result['tolerance']['max_accuracy_change']}, "
        f"RankIC {result['tolerance']['max_rank_ic_change']}).",
        "",
        "| variant | forecast of all symbols, ms | model windows / s | accuracy change | "
        "RankIC change | within tolerance |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in result["variants"]:
        if row["available"]:
            lines.append(
                f"| {row['variant']} | {row['latency_ms']:.1f} | {row['windows_per_second']:,.0f} "
                f"| {row['accuracy_change']:+.4f} | {row['rank_ic_change']:+.4f} "
                f"| {'yes' if row['within_tolerance'] else 'no'} |"
            )
        else:
            lines.append(f"| {row['variant']} | not available: {row['reason']} | | | | no |")
    return "\n".join(lines) + "\n"
