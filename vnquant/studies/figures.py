"""The figures of one finished walk-forward, for a study's table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from vnquant.events import Event, read_events
from vnquant.stages.context import Context
from vnquant.workspace import read_json

if TYPE_CHECKING:
    import pandas as pd

KEPT = (
    *("n", "dates", "accuracy", "accuracy_interval", "rank_ic", "rank_ic_se", "ic"),
    *("ece", "brier", "rmse", "base_rate"),
)

TRAINING = frozenset({"epoch", "checkpoint", "models_finished"})
"""Events that are a sign of training."""


def row(ctx: Context, table: pd.DataFrame | None = None) -> dict[str, Any]:
    """Everything that the table and the recommendation need; JSON-able.

    Args:
        table: the forecasts, with their outcomes; None: those that the walk-forward judged.
    """
    stage, spec = ctx.stage("walk_forward"), ctx.spec
    verdict = read_json(stage / "verdict.json")
    first, *rivals = verdict["pooled"]["comparison"]
    # Absent in a walk-forward of a version that judged what the members say.
    own = verdict.get("uncalibrated", {})
    if table is not None:
        from vnquant.evaluation.metrics import summarise_pooled
        from vnquant.evaluation.recalibration import uncalibrated

        how = (spec.evaluation, spec.windows.horizon, spec.training.seed)
        first = summarise_pooled(table.drop(columns="fold"), *how)
        own = uncalibrated(table)
    by_symbol = validation_losses(ctx)
    made = read_json(ctx.run.path / "manifest.json")
    entry = made["stages"]["walk_forward"]
    level = spec.evaluation.confidence_level
    seconds = training_seconds(read_events(ctx.run.path / "events.jsonl"))
    return {
        "run": spec.run_id,
        "spec_digest": spec.digest,
        "snapshot": made["data_snapshot"],
        "seed": spec.training.seed,
        "finished": entry["finished"],
        "code": entry["code"],
        "packages": entry["packages"],
        "device": entry.get("name"),
        "seconds": seconds,
        "hours": seconds * _processors(entry) / 3600,
        "models": (stage.done() or {}).get("models"),
        "validation_loss": fmean(by_symbol.values()) if by_symbol else None,
        "validation_losses": by_symbol,
        **_kept(first, level),
        "ece_uncalibrated": own.get("ece"),
        "rivals": [{"name": r["name"], **_kept(r, level)} for r in rivals],
    }


def validation_losses(ctx: Context) -> dict[str, float]:
    """Mean over folds and members of each model's best validation loss, by symbol."""
    found: dict[str, list[float]] = {}
    for path in sorted((ctx.stage("walk_forward") / "models").rglob("*.json")):
        meta = read_json(path) or {}
        if meta.get("validation_loss") is not None:
            found.setdefault(meta["symbol"], []).append(meta["validation_loss"])
    return {symbol: fmean(losses) for symbol, losses in found.items()}


def training_seconds(events: Iterable[Event]) -> float:
    """Seconds that training the walk-forward's models took, in all of its starts together.

    Each start counts up to its last sign of training: judging is no cost of how a model is trained,
    and how long a stopped run lay there is none either.
    """
    total, last = 0.0, None
    for event in events:
        now = dt.datetime.fromisoformat(event["time"])
        if event["event"] == "stage_started":
            last = now if event.get("stage") == "walk_forward" else None
        elif event["event"] in TRAINING and last is not None:
            total, last = total + (now - last).total_seconds(), now
    return total


def _kept(figures: dict[str, Any], level: float) -> dict[str, Any]:
    kept = {k: figures[k] for k in KEPT}
    value, se = figures["rank_ic"], figures["rank_ic_se"]
    z = NormalDist().inv_cdf((1 + level) / 2)
    interval = None if value is None or se is None else [value - z * se, value + z * se]
    error = figures["rmse_sum"]
    return {
        **kept,
        "mse_sum": None if error is None else error**2,
        "rank_ic_interval": interval,
    }


def _processors(entry: dict[str, Any]) -> int:
    """Cores that were at work, or 1 for a GPU: what an hour of the trial costs."""
    on_gpu = str(entry.get("device", "")).startswith("cuda")
    return 1 if on_gpu else int(entry.get("threads") or 1) * max(1, len(entry.get("teams") or ()))
