"""The stages after training, their order, and what is done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import SPEC, context, happened, started
from vnquant.errors import DataError, PartialFailure
from vnquant.registry import Registry
from vnquant.stages import ALL, run_stage, run_stages
from vnquant.stages.context import Context
from vnquant.workspace import write_json


def test_prerequisites_ran_in_order_and_only_once(ctx: Context) -> None:
    assert started(ctx) == ["ingest", "features", "train", "evaluate"]
    assert list(ALL[:4]) == started(ctx)


def test_a_finished_stage_is_skipped_and_says_so_once(ctx: Context) -> None:
    run_stages(ctx, ["evaluate", "forecast", "evaluate"])
    assert started(ctx)[4:] == ["forecast"]
    skipped = [e["stage"] for e in happened(ctx, "stage_skipped")]
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
    assert [v["symbol"] for v in verdict["verdicts"]] == list(SPEC.symbols)
    assert set(verdict["statistics"]["by_symbol"]) == set(SPEC.symbols)
    assert set(verdict["uncalibrated"]) == {"ece", "brier"}
    assert (folder / "ic.parquet").stat().st_size > 0
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


@pytest.mark.parametrize(("change", "inference"), [({}, "int8"), ({"snapshot": "0" * 64}, "eager")])
def test_a_set_keeps_the_variant_that_was_measured_on_its_models(
    ctx: Context, change: dict[str, str], inference: str
) -> None:
    trained = ctx.marker("train")
    write_json(
        ctx.stage("optimize") / "DONE.json",
        {"symbols": trained["symbols"], "snapshot": trained["snapshot"], "chosen": "int8"} | change,
    )
    run_stage(context(ctx.workspace.path, force=True), "deploy")
    current = Registry(ctx.workspace.registry).current()
    assert current is not None
    assert current.meta["inference"] == inference


def test_a_set_that_has_gone_missing_is_invalid_data(ctx: Context) -> None:
    forced = context(ctx.workspace.path, force=True)
    name = run_stage(forced, "deploy")["set"]
    (ctx.workspace.registry / "sets" / name / "set.json").unlink()
    with pytest.raises(DataError, match="missing or damaged") as caught:
        run_stage(context(ctx.workspace.path, force=True), "deploy")
    assert caught.value.exit_code == 3


def test_after_a_rollback_the_run_is_deployed_anew(ctx: Context) -> None:
    registry = Registry(ctx.workspace.registry)
    registry.promote(ctx.stage("train") / "models", {}, {"passed": True, "reason": "ok"})
    first = run_stage(context(ctx.workspace.path, force=True), "deploy")
    registry.rollback()
    second = run_stage(context(ctx.workspace.path, force=True), "deploy")
    assert second["set"] == first["set"], "the same content is not copied twice"
    assert started(ctx)[4:] == ["backtest", "deploy", "deploy"]
    assert registry.current() == next(s for s in registry.sets() if s.set_id == first["set"])


def test_deploy_stops_at_a_damaged_registry(ctx: Context) -> None:
    forced = context(ctx.workspace.path, force=True)
    run_stage(forced, "deploy")
    (ctx.workspace.registry / "current.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read") as caught:
        run_stage(context(ctx.workspace.path, force=True), "deploy")
    assert caught.value.exit_code == 3
    assert "registry list" in caught.value.fix


def test_forecast_writes_one_valid_row_for_each_symbol(ctx: Context) -> None:
    marker = run_stage(ctx, "forecast")
    assert (marker["forecasts"], marker["without"]) == (2, {})
    rows = json.loads((ctx.stage("forecast") / "forecast.json").read_text())
    assert [r["symbol"] for r in rows] == ["FPT", "VCB"]
    for row in rows:
        assert row["date"] == ctx.marker("ingest")["last"]
        assert 0 < row["probability_up"] < 1
        assert row["volatility"] > 0
        # HOSE: steps of 10 dong under 10,000, of 50 under 50,000, of 100 above.
        for h in range(1, 6):
            price = round(row[f"price_{h}"] * 1000)
            assert price % (10 if price < 10_000 else 50 if price < 50_000 else 100) == 0


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
