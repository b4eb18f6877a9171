"""Stage walk_forward: every fold's models in common stacks, judged fold by fold and pooled.

Training is resumable at any point, as stage train is: a fold's finished models are files, all
others continue from their newest checkpoint. Judging is quick and is done again from the files.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from vnquant.errors import DataError
from vnquant.evaluation import folds, leaks
from vnquant.features.windows import Windows
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.stages import rivals
from vnquant.stages.calibrating import calibrate
from vnquant.stages.context import Context
from vnquant.stages.fleet import Fleet, trainable
from vnquant.stages.train import diverged, lost, none_left, none_trainable, train_fleet
from vnquant.stages.weighing import weigh
from vnquant.training.data import ModelId
from vnquant.workspace import write_bytes, write_json, written_aside

Tables = dict[str, pd.DataFrame]


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return bool(marker.get("snapshot") == ctx.marker("ingest")["snapshot"])


def run(ctx: Context) -> dict[str, Any]:
    for windows in ctx.folds.values():
        leaks.refuse(leaks.overlapping(ctx.panel, windows))
    chosen: dict[int, list[str]] = {}
    without: dict[int, dict[str, str]] = {}
    for fold, windows in ctx.folds.items():
        chosen[fold], without[fold] = trainable(windows, ctx.spec.training.min_train_windows)
    if not any(chosen.values()):
        raise none_trainable(without[max(without)])
    members = range(len(ctx.spec.model.members))
    wanted = [ModelId(s, m, fold) for fold, names in chosen.items() for s in names for m in members]
    fleet = Fleet(ctx, wanted, "walk_forward")
    provenance = train_fleet(fleet)
    for model in lost(fleet):
        without[model.fold][model.symbol] = diverged(model)
    trained = {
        fold: [w for w in windows if w.symbol not in without[fold]]
        for fold, windows in ctx.folds.items()
    }
    if not any(trained.values()):
        raise none_left(without[max(without)])
    for fold, windows in trained.items():
        weigh(ctx, fleet.models_of(fold), windows)
        calibrate(ctx, fleet.models_of(fold), windows)
    tables = _judged(ctx, fleet, trained)
    result = _write(ctx, tables)
    return {
        "snapshot": fleet.snapshot,
        "models": sum(map(len, trained.values())) * len(members),
        "windows": len(tables["model"]),
        "folds": {
            number: {"symbols": len(trained[int(number)]), "without": without[int(number)]}
            for number in result["folds"]
        },
        "failed": {
            symbol: without[max(without)][symbol]
            for symbol in ctx.panel.symbols
            if all(symbol in reasons for reasons in without.values())
        },
        "provenance": provenance,
    }


def _judged(ctx: Context, fleet: Fleet, trained: dict[int, list[Windows]]) -> Tables:
    """The forecast tables of the model (``model``) and of every rival, with their folds.

    Raises:
        DataError: no fold has a test window.
    """
    tested = {f: [w for w in windows if len(w.test)] for f, windows in trained.items()}
    tested = {fold: windows for fold, windows in tested.items() if windows}
    if not tested:
        raise DataError(
            "no fold has a test window",
            where="walk_forward.folds",
            fix="give later prices, or earlier cutoffs",
        )
    forecasts = []
    for done, (fold, windows) in enumerate(tested.items()):
        ctx.events.progress("judging", done, len(tested), f"fold {fold}")
        ends = {w.symbol: w.test for w in windows}
        models = load_models(fleet.models_of(fold), ends)
        said = predict(models, ctx.panel, ends, device=ctx.profile.torch_device)
        forecasts.append(with_outcomes(said, ctx.panel, ends).assign(fold=fold))
    return {"model": pd.concat(forecasts, ignore_index=True), **rivals.of(ctx, tested)}


def _write(ctx: Context, tables: Tables) -> dict[str, Any]:
    walk, stage = ctx.spec.walk_forward, ctx.stage("walk_forward")
    assert walk is not None  # or ctx.folds had refused
    model = tables["model"]
    others = {name: table for name, table in tables.items() if name != "model"}
    exchanges = dict(zip(ctx.panel.symbols, ctx.panel.exchanges, strict=True))
    caveats = leaks.chosen_later(walk.symbols_chosen_on, [f.test_start for f in walk.folds])
    result = folds.build(model, others, ctx.spec, exchanges, caveats)
    joined = pd.concat([t.assign(name=n) for n, t in others.items()], ignore_index=True)
    for name, table in (("forecasts", model), ("baselines", joined)):
        with written_aside(stage / f"{name}.parquet") as aside:
            table.to_parquet(aside, index=False, compression="zstd")
    write_json(stage / "verdict.json", result)
    write_bytes(stage / "verdict.md", folds.to_markdown(result).encode())
    return result
