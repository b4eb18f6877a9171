"""Stage evaluate: judge the trained models on the untouched test part, beside baselines."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vnquant.errors import DataError
from vnquant.evaluation import baselines, recalibration, verdict
from vnquant.evaluation.statistics import ic_by_date
from vnquant.features.windows import fit_scaler
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.market.universe import VN102
from vnquant.stages.context import Context
from vnquant.workspace import write_bytes, write_json, written_aside


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return ctx.of_these_models(marker)


def run(ctx: Context) -> dict[str, Any]:
    spec = ctx.spec
    symbols: list[str] = ctx.marker("train")["symbols"]
    windows = [w for w in ctx.windows_of(symbols) if len(w.test)]
    if not windows:
        raise DataError(
            f"no symbol has a test window from {spec.windows.test_start} on",
            where="windows",
            fix="give later prices, or an earlier --test-start",
        )
    ends = {w.symbol: w.test for w in windows}
    models = load_models(ctx.stage("train") / "models", ends)
    total, done = sum(len(ends[m.symbol]) for m in models), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        ctx.events.progress("evaluate", done, total)

    device = ctx.profile.torch_device
    judged = with_outcomes(
        predict(models, ctx.panel, ends, device=device, advance=advance), ctx.panel, ends
    )
    scalers = {w.symbol: fit_scaler(ctx.panel, w, spec.windows.lookback) for w in windows}
    rivals = baselines.compare(ctx.panel, windows, scalers, ends, spec)
    exchanges = VN102 | dict(zip(ctx.panel.symbols, ctx.panel.exchanges, strict=True))
    untested = sorted(set(symbols) - set(ends))
    result = verdict.build(judged, rivals, spec, exchanges, _reasons(ctx, untested))
    result["uncalibrated"] = recalibration.uncalibrated(judged)
    stage = ctx.stage("evaluate")
    frames = {"forecasts": pd.DataFrame(judged), "ic": ic_by_date(judged)}
    for name, frame in frames.items():
        with written_aside(stage / f"{name}.parquet") as aside:
            frame.to_parquet(aside, index=False, compression="zstd")
    write_json(stage / "verdict.json", result)
    write_bytes(stage / "verdict.md", verdict.to_markdown(result).encode())
    return {
        "symbols": symbols,
        "snapshot": ctx.marker("train")["snapshot"],
        "windows": len(judged),
        "untested": untested,
        "gate": result["gate"],
        "failed": {},
        "provenance": {"device": ctx.profile.device, "threads": ctx.profile.threads},
    }


def _reasons(ctx: Context, untested: list[str]) -> dict[str, str]:
    """Why symbols that were asked for are not judged, the first stage that lost one speaking."""
    start = ctx.spec.windows.test_start
    reasons = dict.fromkeys(untested, f"no test window from {start} on")
    for stage in ("train", "features", "ingest"):
        reasons |= ctx.marker(stage).get("failed") or {}
    return reasons
