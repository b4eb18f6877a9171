"""Stage forecast: what the run's models say after the last session."""

from __future__ import annotations

from typing import Any

from vnquant.inference.forecast import forecast_table, write_forecast
from vnquant.inference.predictor import load_models
from vnquant.stages.context import Context


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return ctx.of_these_models(marker)


def run(ctx: Context) -> dict[str, Any]:
    symbols: list[str] = ctx.marker("train")["symbols"]
    models = load_models(ctx.stage("train") / "models", symbols)
    device = ctx.profile.torch_device
    table, missing = forecast_table(models, ctx.panel, ctx.windows, device=device)
    write_forecast(ctx.stage("forecast").path, table)
    for symbol, reason in missing.items():
        ctx.events.emit("no_forecast", symbol=symbol, reason=reason)
    return {
        "symbols": symbols,
        "snapshot": ctx.marker("train")["snapshot"],
        "forecasts": len(table),
        "without": missing,
        "failed": {},
    }
