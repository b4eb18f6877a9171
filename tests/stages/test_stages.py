"""The stages after training, on one tiny trained run that every test copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vnquant.errors import DataError, PartialFailure
from vnquant.events import Events, read_events
from vnquant.registry import Registry
from vnquant.spec import GateSpec, MemberSpec, ModelSpec, RunSpec
from vnquant.stages import ALL, run_stage, run_stages
from vnquant.stages.context import Context, Options
from vnquant.workspace import Workspace, write_json

SPEC = RunSpec(
    symbols=("FPT", "VCB"),
    data={"start": "2019-01-01"},
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
    model=ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),)),
    training={"epochs": 1, "patience": None},
    gate=GateSpec(min_accuracy=1.0),  # nobody passes this
)


def context(path: Path, **options: Any) -> Context:
    workspace = Workspace(path).create()
    run = workspace.run(SPEC)
    run.prepare()
    return Context(workspace, run, Events(run.path / "events.jsonl"), Options(**options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "w"
    run_stages(context(path), ["evaluate"])
    return path


@pytest.fixture
def ctx(trained: Path, tmp_path: Path) -> Context:
    shutil.copytree(trained, tmp_path / "w")
    return context(tmp_path / "w")


def started(ctx: Context) -> list[str]:
    events = read_events(ctx.run.path / "events.jsonl")
    return [e["stage"] for e in events if e["event"] == "stage_started"]


def test_prerequisites_ran_in_order_and_only_once(ctx: Context) -> None:
    assert started(ctx) == ["ingest", "features", "train", "evaluate"]
    assert list(ALL[:4]) == started(ctx)


def test_a_finished_stage_is_skipped_and_says_so_once(ctx: Context) -> None:
    run_stages(ctx, ["evaluate", "forecast", "evaluate"])
    assert started(ctx)[4:] == ["forecast"]
    skipped = [
        e["stage"]
        for e in read_events(ctx.run.path / "events.jsonl")
        if e["event"] == "stage_skipped"
    ]
    assert sorted(skipped) == ["evaluate", "features", "ingest", "train"]


def test_a_stage_is_redone_when_what_it_judged_has_changed(ctx: Context) -> None:
    marker = ctx.marker("train")
    write_json(ctx.stage("train") / "DONE.json", {**marker, "symbols": ["FPT"]})
    result = run_stage(ctx, "evaluate")
    assert result["symbols"] == ["FPT"]
    assert started(ctx)[4:] == ["evaluate"]


def test_the_marker_goes_before_the_work_and_comes_after_it(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vnquant.stages import forecast

    def fails(*_: object) -> None:
        assert ctx.stage("forecast").done() is None
        raise DataError("no", where="here", fix="this")

    run_stage(ctx, "forecast")
    monkeypatch.setattr(forecast, "is_current", lambda *_: False)
    monkeypatch.setattr(forecast, "write_forecast", fails)
    with pytest.raises(DataError):
        run_stage(ctx, "forecast")
    assert ctx.stage("forecast").done() is None


def test_evaluate_writes_what_deploy_and_people_need(ctx: Context) -> None:
    folder = ctx.stage("evaluate").path
    verdict = json.loads((folder / "verdict.json").read_text())
    names = [row["name"] for row in verdict["comparison"]]
    assert names == ["model", "always_up", "momentum", "ridge_per_symbol", "ridge_pooled"]
    assert verdict["gate"]["passed"] is False
    assert (folder / "verdict.md").read_text().startswith("# Verdict")
    assert (folder / "forecasts.parquet").stat().st_size > 0


def test_a_refusing_gate_keeps_what_is_deployed(ctx: Context) -> None:
    registry = Registry(ctx.workspace.registry)
    models = ctx.stage("train") / "models"
    before = registry.promote(models, {"run_id": "earlier"}, {"passed": True, "reason": "ok"})
    result = run_stage(ctx, "deploy")
    assert result["deployed"] is False
    assert "accuracy" in result["gate"]["reason"]
    current = registry.current()
    assert current is not None
    assert current.set_id == before


def test_force_deploys_and_is_recorded(ctx: Context) -> None:
    run_stage(ctx, "deploy")
    forced = context(ctx.workspace.path, force=True, force_reason="a test")
    result = run_stage(forced, "deploy")
    assert result["deployed"] is True
    current = Registry(ctx.workspace.registry).current()
    assert current is not None
    assert current.meta["forced"] is True
    assert current.meta["force_reason"] == "a test"
    assert current.meta["spec_digest"] == SPEC.digest
    assert {Path(f).name for f in current.meta["files"]} >= {
        *("spec.json", "verdict.json", "FPT.m0.safetensors", "FPT.m0.json")
    }
    # The same run again is current; after a rollback or another set it would be deployed anew.
    assert run_stage(context(ctx.workspace.path, force=True), "deploy") == result


def test_deploy_stops_at_a_damaged_registry(ctx: Context) -> None:
    forced = context(ctx.workspace.path, force=True)
    run_stage(forced, "deploy")
    (ctx.workspace.registry / "current.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        run_stage(context(ctx.workspace.path, force=True), "deploy")


def test_optimize_chooses_the_fastest_within_tolerance(ctx: Context) -> None:
    marker = run_stage(ctx, "optimize")
    folder = ctx.stage("optimize").path
    result = json.loads((folder / "inference.json").read_text())
    rows = {r["variant"]: r for r in result["variants"]}
    assert set(rows) == {"eager", "compiled", "int8"}
    good = [r for r in rows.values() if r["within_tolerance"]]
    assert marker["chosen"] == min(good, key=lambda r: r["latency_ms"])["variant"]
    assert rows["eager"]["accuracy_change"] == 0.0
    assert "| eager |" in (folder / "inference.md").read_text()


def test_optimize_refuses_a_variant_that_changes_the_forecasts(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vnquant.inference.predictor import eager
    from vnquant.inference.variants import VARIANTS

    def wrong(*args: Any) -> Any:
        run = eager(*args)
        return lambda x: -run(x)

    monkeypatch.setitem(VARIANTS, "int8", wrong)
    monkeypatch.delitem(VARIANTS, "compiled")
    assert run_stage(ctx, "optimize")["chosen"] == "eager"
    rows = json.loads((ctx.stage("optimize") / "inference.json").read_text())["variants"]
    assert [r["within_tolerance"] for r in rows] == [True, False]


def test_symbols_that_failed_end_in_a_partial_failure(ctx: Context) -> None:
    marker = ctx.marker("train")
    failed = {"failed": {"VCB": "member 0 diverged"}}
    write_json(ctx.stage("train") / "DONE.json", {**marker, "symbols": ["FPT"], **failed})
    with pytest.raises(PartialFailure, match="VCB: member 0 diverged") as caught:
        run_stages(ctx, ["forecast"])
    assert caught.value.exit_code == 4
    assert ctx.stage("forecast").done() is not None
