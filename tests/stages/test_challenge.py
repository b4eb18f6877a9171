"""The run's forecasts beside those of the deployed set."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import SPEC
from vnquant.registry import Registry
from vnquant.stages import run_stage
from vnquant.stages.challenge import beside_deployed
from vnquant.stages.context import Context
from vnquant.workspace import write_json


def deploy_the_same_models(ctx: Context, folder: Path, seed: int, *, verdict: bool = False) -> None:
    """A deployed set of another run, whose models happen to be this run's own."""
    shutil.copytree(ctx.stage("train") / "models", folder / "models")
    if verdict:
        shutil.copy(ctx.stage("evaluate") / "verdict.json", folder)
    spec = SPEC.model_copy(update={"training": SPEC.training.model_copy(update={"seed": seed})})
    write_json(folder / "spec.json", spec.model_dump(mode="json"))
    meta = {"spec_digest": spec.digest, "symbols": list(SPEC.symbols)}
    Registry(ctx.workspace.registry).promote(folder, meta, {"passed": True, "reason": "a test"})


def test_nothing_to_compare_with(ctx: Context, tmp_path: Path) -> None:
    assert beside_deployed(ctx) is None
    deploy_the_same_models(ctx, tmp_path / "own", seed=SPEC.training.seed)
    assert beside_deployed(ctx) is None, "this run's own set is no rival"


def test_equal_models_are_equal(ctx: Context, tmp_path: Path) -> None:
    deploy_the_same_models(ctx, tmp_path / "set", seed=7)
    rival = beside_deployed(ctx)
    assert rival is not None
    assert rival.difference == pytest.approx(0, abs=1e-9)


def test_a_set_that_is_worse_than_the_deployed_one_is_refused(ctx: Context, tmp_path: Path) -> None:
    deploy_the_same_models(ctx, tmp_path / "set", seed=7)
    path = ctx.stage("evaluate") / "forecasts.parquet"
    judged = pd.read_parquet(path)
    rises = judged[[f"y_{h}" for h in range(1, 6)]].sum(axis=1) > 0
    judged.assign(p_up=np.where(rises, 0.05, 0.95)).to_parquet(path)
    marker = run_stage(ctx, "deploy")
    assert marker["deployed"] is False
    assert "not worse than the deployed set" in marker["gate"]["reason"]


def test_deploy_decides_with_the_backtest(ctx: Context) -> None:
    marker = run_stage(ctx, "deploy")
    checks = {c["name"]: c["value"] for c in marker["gate"]["checks"]}
    metrics = ctx.marker("backtest")["metrics"]
    assert checks["sharpe"] == metrics["sharpe"]
    assert checks["drawdown"] == metrics["max_drawdown"]
