"""The calibrated probability is the one that is judged and shown; its curve is of validation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import SPEC, happened
from tests.stages.test_challenge import deploy_the_same_models
from vnquant.evaluation.calibration import brier_score, expected_calibration_error
from vnquant.evaluation.recalibration import Curve, fit
from vnquant.evaluation.statistics import rises
from vnquant.inference.deployed import open_deployed, open_run
from vnquant.inference.predictor import load_models, member_forecasts, predict
from vnquant.stages import run_stage
from vnquant.stages.calibrating import calibrate
from vnquant.stages.challenge import beside_deployed
from vnquant.stages.context import Context
from vnquant.workspace import read_json, write_json

OLD = Curve(intercept=-2.0, slope=0.5, n=500)
"""Says that nearly every rise is a fall, so that who heeds it is known by the direction."""


def folder(ctx: Context) -> Path:
    return ctx.stage("train") / "models"


def metas(models: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    paths = sorted(models.glob("*.json"))
    assert paths
    return ((path, read_json(path)) for path in paths)


def curves(models: Path) -> list[dict[str, Any] | None]:
    return [meta.get("calibration") for _, meta in metas(models)]


def strip(models: Path) -> None:
    """As an earlier version left them."""
    for path, meta in metas(models):
        meta.pop("calibration", None)
        path.unlink()  # a set's files are links to the run's
        write_json(path, meta)


def judged_earlier(verdict: Path, curve: Curve | None = OLD) -> None:
    """As an earlier version left it: it held the curve."""
    content = read_json(verdict)
    content.pop("uncalibrated", None)
    verdict.unlink()
    write_json(verdict, {**content, "calibration": curve and {**asdict(curve), "ece": 0.01}})


def said(ctx: Context, ends: dict[str, np.ndarray]) -> np.ndarray:
    """What the members of these one-member ensembles say."""
    found = member_forecasts(load_models(folder(ctx), ends), ctx.panel, ends)
    return np.concatenate([found[symbol][0].forecast.p_up for symbol in ends])


def shown(ctx: Context) -> list[dict[str, Any]]:
    run_stage(ctx, "forecast")
    rows: list[dict[str, Any]] = json.loads((ctx.stage("forecast") / "forecast.json").read_text())
    assert rows
    return rows


def assert_consistent(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        p = row["probability_up"]
        assert row["direction"] == ("up" if p > 0.5 else "down")
        assert row["confidence"] == max(p, 1 - p)


def test_every_model_carries_the_curve_of_the_validation_part(ctx: Context) -> None:
    ends = {w.symbol: w.validation for w in ctx.windows}
    up = np.concatenate(
        [ctx.panel.targets[r].astype(np.float64).sum(1) > 1e-6 for r in ends.values()]
    )
    expected = fit(said(ctx, ends), up)
    assert expected is not None
    for found in curves(folder(ctx)):
        assert found == pytest.approx(asdict(expected), rel=1e-6, abs=1e-9)


def test_calibrating_again_changes_nothing(ctx: Context) -> None:
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder(ctx).iterdir()}
    calibrate(ctx, folder(ctx), ctx.windows)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder(ctx).iterdir()} == before


def test_the_curve_knows_nothing_of_the_test_part(ctx: Context) -> None:
    before = curves(folder(ctx))
    for w in ctx.windows:
        ctx.panel.targets[w.test] = -ctx.panel.targets[w.test]
        ctx.panel.features[int(w.test[0]) : int(w.test[-1]) + 1] = 1e3
    calibrate(ctx, folder(ctx), ctx.windows)
    assert curves(folder(ctx)) == before
    for w in ctx.windows:
        ctx.panel.targets[w.validation] = -ctx.panel.targets[w.validation]
    calibrate(ctx, folder(ctx), ctx.windows)
    assert curves(folder(ctx)) != before


def test_with_too_few_windows_no_model_keeps_a_curve(ctx: Context) -> None:
    few = [replace(w, validation=w.validation[:40]) for w in ctx.windows]
    calibrate(ctx, folder(ctx), few)
    assert curves(folder(ctx)) == [None, None]
    calibrate(ctx, folder(ctx), ctx.windows)
    assert None not in curves(folder(ctx))


@pytest.mark.parametrize("half", [True, False])
def test_killed_before_or_while_calibrating_it_ends_in_the_same_bits(
    ctx: Context, half: bool
) -> None:
    before = {p.name: p.read_bytes() for p in folder(ctx).iterdir()}
    for path, meta in list(metas(folder(ctx)))[: 1 if half else None]:
        write_json(path, {k: v for k, v in meta.items() if k != "calibration"})
    ctx.stage("train").reopen()
    trained = len(happened(ctx, "models_finished"))
    run_stage(ctx, "train")
    assert {p.name: p.read_bytes() for p in folder(ctx).iterdir()} == before
    assert len(happened(ctx, "models_finished")) == trained, "what is finished is trained once"


def test_a_model_without_a_curve_says_what_it_said(ctx: Context) -> None:
    ends = {w.symbol: w.test for w in ctx.windows}
    with_one = predict(load_models(folder(ctx), ends), ctx.panel, ends)
    curve = curves(folder(ctx))[0]
    assert curve is not None
    strip(folder(ctx))
    without = predict(load_models(folder(ctx), ends), ctx.panel, ends)
    own = said(ctx, ends)
    np.testing.assert_array_equal(without["p_up"], own)
    np.testing.assert_array_equal(without["p_model"], own)
    np.testing.assert_array_equal(with_one["p_up"], Curve(**curve)(own))
    pd.testing.assert_frame_equal(with_one.drop(columns="p_up"), without.drop(columns="p_up"))
    assert not np.allclose(with_one["p_up"], own)


def test_what_is_shown_is_what_was_judged(ctx: Context) -> None:
    """Of the same windows: the newest that are judged stand in for the newest there are."""
    # That of these hardly trained models has slope 0, and one probability for all.
    curve = asdict(Curve(intercept=-0.1, slope=3.0, n=500))
    for path, meta in metas(folder(ctx)):
        write_json(path, {**meta, "calibration": curve})
    ctx.stage("evaluate").reopen()
    run_stage(ctx, "evaluate")
    judged = pd.read_parquet(ctx.stage("evaluate") / "forecasts.parquet")
    assert judged["p_up"].nunique() > 100
    latest = [replace(w, latest=int(w.test[-1])) for w in ctx.windows]
    ctx.__dict__["windows"] = latest
    rows = shown(ctx)
    assert_consistent(rows)
    assert [r["symbol"] for r in rows] == list(SPEC.symbols)
    for row in rows:
        same = (judged["symbol"] == row["symbol"]) & (judged["date"] == row["date"])
        assert row["probability_up"] == pytest.approx(judged.loc[same, "p_up"].item(), rel=1e-6)


def test_what_was_judged_is_calibrated_and_the_rest_is_said_beside_it(ctx: Context) -> None:
    verdict = read_json(ctx.stage("evaluate") / "verdict.json")
    judged = pd.read_parquet(ctx.stage("evaluate") / "forecasts.parquet")
    up = rises(judged)
    own = judged["p_model"].to_numpy()
    assert verdict["comparison"][0]["brier"] == brier_score(judged["p_up"].to_numpy(), up)
    assert verdict["uncalibrated"] == {
        "ece": expected_calibration_error(own, up),
        "brier": brier_score(own, up),
    }
    page = (ctx.stage("evaluate") / "verdict.md").read_text()
    assert f"their Brier score {brier_score(own, up):.4f}." in page
    assert verdict["uncalibrated"]["brier"] != verdict["comparison"][0]["brier"]


def test_the_command_shows_the_same_from_the_run_and_from_its_set(ctx: Context) -> None:
    rows = shown(ctx)
    assert_consistent(rows)
    run_stage(replace(ctx, options=replace(ctx.options, force=True, force_reason="test")), "deploy")
    for ready in (open_run(ctx.workspace, ctx.spec.run_id), open_deployed(ctx.workspace)):
        # A curve in the verdict is for models that carry none.
        judged_earlier(ready.verdict)
        table, _ = ready.forecast([], None)
        assert list(table["probability_up"]) == [r["probability_up"] for r in rows]


@pytest.mark.parametrize("curve", [OLD, None])
def test_a_set_of_an_earlier_version_has_its_curve_in_the_verdict(
    ctx: Context, tmp_path: Path, curve: Curve | None
) -> None:
    deploy_the_same_models(ctx, tmp_path / "set", seed=7, verdict=True)
    for ready in (open_run(ctx.workspace, ctx.spec.run_id), open_deployed(ctx.workspace)):
        strip(ready.models)
        judged_earlier(ready.verdict, curve)
        table, _ = ready.forecast([], None)
        rows = table.to_dict(orient="records")
        assert_consistent([{str(k): v for k, v in r.items()} for r in rows])
        own = said(ctx, {w.symbol: np.array([w.latest]) for w in ctx.windows})
        expected = own if curve is None else curve(own)
        np.testing.assert_allclose(table["probability_up"], expected, rtol=1e-6)
        if curve is not None:
            assert set(table["direction"]) == {"down"}


def test_a_challenger_is_judged_against_what_the_deployed_set_shows(
    ctx: Context, tmp_path: Path
) -> None:
    deploy_the_same_models(ctx, tmp_path / "set", seed=7, verdict=True)
    deployed = open_deployed(ctx.workspace)
    strip(deployed.models)
    judged = pd.read_parquet(ctx.stage("evaluate") / "forecasts.parquet")
    own = judged["p_model"].to_numpy()
    for curve in (None, OLD):
        judged_earlier(deployed.verdict, curve)
        rival = beside_deployed(ctx)
        assert rival is not None
        theirs = own if curve is None else curve(own)
        assert rival.first == pytest.approx(brier_score(judged["p_up"].to_numpy(), rises(judged)))
        assert rival.second == pytest.approx(brier_score(theirs, rises(judged)), rel=1e-6)
