"""The confidence of a forecast is what such forecasts have been worth, by a curve of validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import happened
from vnquant.evaluation.recalibration import Curve
from vnquant.inference.deployed import open_run
from vnquant.stages import run_stage, run_stages
from vnquant.stages.context import Context
from vnquant.workspace import read_json, write_json


def forecast(ctx: Context) -> list[dict[str, Any]]:
    run_stage(ctx, "forecast")
    rows: list[dict[str, Any]] = json.loads((ctx.stage("forecast") / "forecast.json").read_text())
    return rows


def verdict(ctx: Context) -> Path:
    return ctx.stage("evaluate") / "verdict.json"


def with_curve(ctx: Context, curve: dict[str, Any] | None) -> None:
    write_json(verdict(ctx), {**read_json(verdict(ctx)), "calibration": curve})


def test_confidence_is_the_directions_probability_by_the_curve(ctx: Context) -> None:
    curve = Curve(intercept=-2.0, slope=0.5, n=500)
    with_curve(ctx, {"intercept": -2.0, "slope": 0.5, "n": 500, "ece": 0.01})
    rows = forecast(ctx)
    assert rows
    for row in rows:
        true = float(curve(np.array([row["probability_up"]]))[0])
        wanted = true if row["direction"] == "up" else 1 - true
        assert row["confidence"] == pytest.approx(wanted)
        assert row["direction"] == ("up" if row["probability_up"] > 0.5 else "down")
    # The command reads the same curve, from the run as from a deployed set.
    table, _ = open_run(ctx.workspace, ctx.spec.run_id).forecast([], None)
    assert list(table["confidence"]) == pytest.approx([r["confidence"] for r in rows])


def test_without_a_curve_it_is_the_models_own_and_a_later_one_redoes_it(ctx: Context) -> None:
    with_curve(ctx, None)
    for row in forecast(ctx):
        assert row["confidence"] == max(row["probability_up"], 1 - row["probability_up"])
    with_curve(ctx, {"intercept": 0.1, "slope": 0.1, "n": 500, "ece": 0.01})
    ctx.current.clear()
    run_stages(ctx, ["forecast"])
    started = [e["stage"] for e in happened(ctx, "stage_started")]
    assert started.count("forecast") == 2


def test_the_curve_knows_nothing_of_the_test_part(ctx: Context) -> None:
    before = read_json(verdict(ctx))["calibration"]
    assert before is not None
    forecasts = pd.read_parquet(ctx.stage("evaluate") / "forecasts.parquet")
    start = pd.Timestamp(ctx.spec.windows.test_start)
    assert pd.to_datetime(forecasts["date"]).min() >= start
    # Another history from the test part on: the curve stays, the test part's error does not.
    rows = np.flatnonzero(ctx.panel.dates >= np.datetime64(start.date()))
    ctx.panel.targets[rows] = -ctx.panel.targets[rows]
    ctx.stage("evaluate").reopen()
    ctx.current.clear()
    run_stage(ctx, "evaluate")
    after = read_json(verdict(ctx))["calibration"]
    for key in ("intercept", "slope", "n"):
        assert after[key] == before[key]
    assert after["ece"] != before["ece"]
