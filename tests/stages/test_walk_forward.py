"""The stage walk_forward: common stacks, a fold alone, kills inside and between folds."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.stages.conftest import SPEC, context, happened, killed
from vnquant.errors import DataError, UsageError
from vnquant.evaluation import boosting
from vnquant.evaluation.calibration import brier_score
from vnquant.evaluation.recalibration import Curve, fit
from vnquant.evaluation.statistics import rises
from vnquant.features import folds as fold_windows
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.spec import FoldSpec, RunSpec, WalkForwardSpec
from vnquant.stages import run_stage
from vnquant.stages.context import Context
from vnquant.stockformer.files import load_model

FOLDS = (
    FoldSpec(validation_start="2020-06-01", test_start="2021-01-04", test_end="2021-10-01"),
    FoldSpec(validation_start="2021-01-04", test_start="2021-10-01", test_end="2022-06-01"),
    FoldSpec(validation_start="2021-06-01", test_start="2022-06-01"),
)
WALK: RunSpec = SPEC.model_copy(
    update={
        "symbols": ("FPT", "VNM"),  # without a break where a fold begins
        "data": SPEC.data.model_copy(update={"start": dt.date(2017, 1, 1)}),
        "walk_forward": WalkForwardSpec(folds=FOLDS),
        "training": SPEC.training.model_copy(update={"epochs": 3}),
    }
)
RIVALS = ["always_up", "momentum", "ridge_per_symbol", "ridge_pooled"]
TOLERANCE = {"rtol": 0, "atol": 2e-4}
"""Stacks of other widths sum in another order; AdamW carries the last bit on."""


def rows(ctx: Context) -> dict[str, torch.Tensor]:
    folder = ctx.stage("walk_forward") / "models"
    files = folder.glob("*/*.safetensors")
    return {f"{p.parent.name}/{p.stem}": load_model(p).row for p in files}


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of two symbols, trained four models at a time."""
    path = tmp_path_factory.mktemp("walked") / "w"
    run_stage(context(path, WALK, stack_width=4), "walk_forward")
    return path


@pytest.fixture
def ctx(walked: Path) -> Context:
    return context(walked, WALK)


@pytest.fixture
def untrained(walked: Path, tmp_path: Path) -> Context:
    """The same with its features and its plan only."""
    shutil.copytree(walked, tmp_path / "w")
    ctx = context(tmp_path / "w", WALK, stack_width=4, checkpoint_epochs=1)
    stage = ctx.stage("walk_forward")
    plan = (stage / "plan.json").read_bytes()
    shutil.rmtree(stage.path)
    stage.path.mkdir()
    (stage / "plan.json").write_bytes(plan)
    (ctx.run.path / "events.jsonl").unlink()
    return ctx


def test_folds_share_stacks_and_differ_by_their_data(ctx: Context) -> None:
    plan = json.loads((ctx.stage("walk_forward") / "plan.json").read_text())
    assert [len(unit) for unit in plan["units"]] == [4, 2]
    assert len({fold for _, _, fold in plan["units"][0]}) > 1
    found = rows(ctx)
    assert len(found) == 6
    for symbol in WALK.symbols:
        assert not torch.equal(found[f"fold-1/{symbol}.m0"], found[f"fold-2/{symbol}.m0"])


def test_every_fold_is_judged_and_so_are_all_together(ctx: Context) -> None:
    stage = ctx.stage("walk_forward")
    table = pd.read_parquet(stage / "forecasts.parquet")
    verdict = json.loads((stage / "verdict.json").read_text())
    assert sorted(table["fold"].unique()) == [1, 2, 3]
    assert not table.duplicated(["symbol", "date"]).any()
    for number, fold in enumerate(FOLDS, start=1):
        dates = table.loc[table["fold"] == number, "date"]
        assert dates.min() >= pd.Timestamp(fold.test_start)
        assert dates.max() < pd.Timestamp(fold.test_end or "2100-01-01")
        names = [r["name"] for r in verdict["folds"][str(number)]["verdict"]["comparison"]]
        assert names[:5] == ["model", *RIVALS]
        assert len(names) == (8 if boosting.available() else 5)
    pooled = verdict["pooled"]["comparison"]
    assert {row["n"] for row in pooled} == {len(table)}
    hits = np.sign(table[[f"y_{h}" for h in range(1, 6)]].sum(axis=1)) == np.where(
        table["p_up"] > 0.5, 1, -1
    )
    assert pooled[0]["accuracy"] == pytest.approx(hits.mean(), abs=0.02)  # ties apart
    rivals = pd.read_parquet(stage / "baselines.parquet")
    assert rivals.groupby("name").size().eq(len(table)).all()
    up = rises(table)
    own = table["p_model"].to_numpy()
    assert "p_calibrated" not in table
    assert verdict["uncalibrated"]["brier"] == pytest.approx(brier_score(own, up))
    assert pooled[0]["brier"] == pytest.approx(brier_score(table["p_up"].to_numpy(), up))
    page = (stage / "verdict.md").read_text()
    assert f"their Brier score {brier_score(own, up):.4f}." in page
    assert "nobody has recorded when this list of symbols was made" in page
    assert page.count("| 2 | 2021-1") == len(pooled)


def test_every_fold_is_calibrated_on_its_own_validation_part(ctx: Context) -> None:
    stage, found = ctx.stage("walk_forward"), []
    table = pd.read_parquet(stage / "forecasts.parquet")
    for number, windows in ctx.folds.items():
        folder = stage / "models" / f"fold-{number}"
        metas = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
        (curve,) = {tuple(sorted(m["calibration"].items())) for m in metas}
        known = Curve(**dict(curve))
        assert known.n == sum(len(w.validation) for w in windows)
        ends = {w.symbol: w.validation for w in windows}
        said = with_outcomes(predict(load_models(folder, ends), ctx.panel, ends), ctx.panel, ends)
        expected = fit(said["p_model"].to_numpy(), rises(said))
        assert expected is not None
        assert known.intercept == pytest.approx(expected.intercept, rel=1e-6, abs=1e-9)
        judged = table[table["fold"] == number]
        np.testing.assert_array_equal(judged["p_up"], known(judged["p_model"].to_numpy()))
        found.append(known)
    assert len(set(found)) == len(FOLDS)


def test_a_fold_trained_alone_is_the_fold_trained_with_others(ctx: Context, tmp_path: Path) -> None:
    """Once as the only fold, once as a plain run with the same split."""
    alone = WALK.model_copy(update={"walk_forward": WalkForwardSpec(folds=FOLDS[2:])})
    single = context(tmp_path / "w", alone)
    run_stage(single, "walk_forward")
    plain = context(tmp_path / "w", WALK.model_copy(update={"walk_forward": None}))
    run_stage(plain, "train")
    together = rows(ctx)
    for symbol in WALK.symbols:
        expected = together[f"fold-3/{symbol}.m0"]
        torch.testing.assert_close(rows(single)[f"fold-1/{symbol}.m0"], expected, **TOLERANCE)
        model = load_model(plain.stage("train") / "models" / f"{symbol}.m0.safetensors")
        torch.testing.assert_close(model.row, expected, **TOLERANCE)


@pytest.mark.parametrize("event", ["checkpoint", "models_finished"])
def test_killed_inside_a_stack_and_between_stacks_it_ends_in_the_same_bits(
    ctx: Context, untrained: Context, event: str
) -> None:
    more = ("--stack-width", "4")
    killed(untrained, "walk_forward", lambda: bool(happened(untrained, event)), *more)
    assert untrained.stage("walk_forward").done() is None
    before = len(happened(untrained, "models_finished"))
    run_stage(untrained, "walk_forward")
    expected, found = rows(ctx), rows(untrained)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    if event == "checkpoint":
        assert happened(untrained, "resumed")
    else:
        assert before == 1, "what was finished is not trained again"
        assert len(happened(untrained, "models_finished")) == 2
    files = [c.stage("walk_forward") / "forecasts.parquet" for c in (ctx, untrained)]
    pd.testing.assert_frame_equal(*map(pd.read_parquet, files))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two teams need two CPUs")
def test_teams_share_folds_too(ctx: Context, untrained: Context) -> None:
    teams = context(untrained.workspace.path, WALK, stack_width=4, teams=2)
    run_stage(teams, "walk_forward")
    expected, found = rows(ctx), rows(teams)
    assert len(happened(teams, "team_started")) == 2
    assert set(found) == set(expected)
    for name, row in found.items():
        torch.testing.assert_close(row, expected[name], **TOLERANCE)


def test_a_symbol_listed_late_is_missing_from_early_folds_only(tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", WALK)
    run_stage(ctx, "features")
    panel = ctx.panel
    late = int(np.searchsorted(panel.dates[panel.rows(1)], np.datetime64("2020-01-01")))
    panel.features[panel.rows(1)][:late] = np.nan
    marker = run_stage(ctx, "walk_forward")
    assert marker["failed"] == {}
    assert "fewer than 128" in marker["folds"]["1"]["without"]["VNM"]
    assert marker["folds"]["3"] == {"symbols": 2, "without": {}}
    assert len(rows(ctx)) == marker["models"]


def test_without_folds_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folds"):
        run_stage(context(tmp_path / "w"), "walk_forward")


def test_overlapping_folds_stop_the_stage(
    untrained: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage looks at the windows it is given, whoever made them."""
    honest = fold_windows.split_folds

    def unpurged(*given: object) -> object:
        found = honest(*given)  # type: ignore[arg-type]
        w = found[0][0]
        grown = np.append(w.train, w.train[-1] + np.arange(1, 12))
        found[0][0] = w.__class__(**{**w.__dict__, "train": grown})
        return found

    monkeypatch.setattr(fold_windows, "split_folds", unpurged)
    with pytest.raises(DataError, match="targets of train reach"):
        run_stage(untrained, "walk_forward")
