"""Stage deploy: promote the run's models to the registry if the gate passes, or by force."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from vnquant.evaluation.gates import decide
from vnquant.manifest import code_version
from vnquant.registry import Registry
from vnquant.stages.challenge import beside_deployed
from vnquant.stages.context import Context
from vnquant.workspace import read_json, write_json


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    if marker.get("snapshot") != ctx.marker("evaluate")["snapshot"]:
        return False
    if not marker["deployed"]:
        return not ctx.options.force and marker["gate"] == _gate(ctx)
    current = Registry(ctx.workspace.registry).current()
    return current is not None and current.set_id == marker["set"]


def run(ctx: Context) -> dict[str, Any]:
    judged = ctx.marker("evaluate")
    gate = _gate(ctx)
    force = ctx.options.force
    facts = {"gate": gate, "snapshot": judged["snapshot"], "failed": {}}
    if not gate["passed"] and not force:
        ctx.events.emit("not_deployed", reason=gate["reason"])
        return {"deployed": False, "set": None, **facts}
    registry = Registry(ctx.workspace.registry)
    measured = ctx.stage("optimize").done() or {}
    with tempfile.TemporaryDirectory(dir=ctx.run.path, prefix=".deploy-") as folder:
        _assemble(ctx, Path(folder), judged["symbols"])
        meta = {
            "run_id": ctx.spec.run_id,
            "spec_digest": ctx.spec.digest,
            "data_snapshot": ctx.marker("ingest")["snapshot"],
            "last_session": ctx.marker("ingest")["last"],
            "symbols": judged["symbols"],
            "code": code_version(),
            "inference": measured["chosen"] if ctx.of_these_models(measured) else "eager",
        }
        set_id = registry.promote(
            Path(folder), meta, gate, force=force, force_reason=ctx.options.force_reason
        )
    ctx.events.emit("deployed", set=set_id, forced=force and not gate["passed"])
    return {"deployed": True, "set": set_id, **facts}


def _gate(ctx: Context) -> dict[str, Any]:
    """The decision on everything that is known: forecasts, backtest and the deployed set."""
    verdict = read_json(ctx.stage("evaluate") / "verdict.json")
    book = ctx.marker("backtest")["metrics"]
    rival = None if ctx.spec.gate.against_deployed == "any" else beside_deployed(ctx)
    return decide(verdict["comparison"][0], ctx.spec.gate, book=book, rival=rival).to_dict()


def _assemble(ctx: Context, folder: Path, symbols: list[str]) -> None:
    """What a set holds: models with their metadata, the spec, and the verdict on them."""
    models = folder / "models"
    models.mkdir()
    wanted = set(symbols)
    for path in sorted((ctx.stage("train") / "models").glob("*.m*.*")):
        if path.name.split(".")[0] in wanted:
            # The registry copies and hashes; a link saves writing the bytes twice here.
            os.link(path, models / path.name)
    write_json(folder / "spec.json", ctx.spec.model_dump(mode="json"))
    write_json(folder / "verdict.json", read_json(ctx.stage("evaluate") / "verdict.json"))
