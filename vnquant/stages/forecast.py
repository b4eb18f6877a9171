"""Stage forecast: what the run's models say after the last session."""

from __future__ import annotations

from typing import Any

from vnquant.evaluation.recalibration import Curve, stored
from vnquant.inference.forecast import forecast_table, write_forecast
from vnquant.inference.predictor import load_models
from vnquant.stages.context import Context
from vnquant.workspace import read_json


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    calibrated = marker.get("calibrated", False) == (_curve(ctx) is not None)
    return ctx.of_these_models(marker) and calibrated


def _curve(ctx: Context) -> Curve | None:
    """What evaluating these very models has found, if they have been evaluated."""
    if not ctx.of_these_models(ctx.stage("evaluate").done() or {}):
        return None
    return stored(read_json(ctx.stage("evaluate") / "verdict.json"))


def run(ctx: Context) -> dict[str, Any]:
    symbols: list[str] = ctx.marker("train")["symbols"]
    models = load_models(ctx.stage("train") / "models", symbols)
    curve, device = _curve(ctx), ctx.profile.torch_device
    table, missing = forecast_table(models, ctx.panel, ctx.windows, device=device, curve=curve)
    write_forecast(ctx.stage("forecast").path, table)
    for symbol, reason in missing.items():
        ctx.events.emit("no_forecast", symbol=symbol, reason=reason)
    return {
        "symbols": symbols,
        "snapshot": ctx.marker("train")["snapshot"],
        "forecasts": len(table),
        "without": missing,
        "calibrated": curve is not None,
        "failed": {},
    }
