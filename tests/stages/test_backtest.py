"""Stage backtest: the files that others read, and what they must agree on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import context, happened
from vnquant.stages import run_stage
from vnquant.stages.context import Context
from vnquant.workspace import write_json


@pytest.fixture
def done(ctx: Context) -> Context:
    run_stage(ctx, "backtest")
    return ctx


def test_curve_and_figures_agree(done: Context) -> None:
    stage = done.stage("backtest")
    metrics = json.loads((stage / "backtest.json").read_text())["metrics"]
    curve = pd.read_parquet(stage / "equity.parquet")
    assert list(curve) == ["date", "equity", "drawdown", "naive", "benchmark"]
    assert curve["equity"].iloc[-1] - 1 == pytest.approx(metrics["net_return"])
    assert curve["drawdown"].max() == pytest.approx(metrics["max_drawdown"])
    assert curve["benchmark"].isna().all(), "simulated prices hold no index"
    assert 0 <= metrics["deflated_sharpe"] <= 1
    assert (stage / "backtest.md").read_text().startswith("# Backtest")


def test_nothing_trades_on_a_session_whose_forecast_was_not_yet_known(done: Context) -> None:
    """The first forecast is made at the close of the first session of the curve."""
    stage = done.stage("backtest")
    curve = pd.read_parquet(stage / "equity.parquet")
    judged = pd.read_parquet(done.stage("evaluate") / "forecasts.parquet")
    assert curve["date"].iloc[0] == judged["date"].min()
    assert curve["equity"].iloc[0] == 1.0
    fills = pd.read_parquet(stage / "fills.parquet")
    assert set(fills["side"]) <= {"buy", "sell"}
    assert (fills["date"] > judged["date"].min()).all()


def test_following_the_outcomes_earns_and_their_opposite_does_not(ctx: Context) -> None:
    """The stage reads evaluate's forecasts: perfect ones must win, reversed ones must not trade
    better. A sign or a day that is wrong turns this around."""
    path = ctx.stage("evaluate") / "forecasts.parquet"
    judged = pd.read_parquet(path)
    earned = {}
    for sign in (1.0, -1.0):
        seen = judged.assign(**{f"mu_{h}": sign * judged[f"y_{h}"] for h in range(1, 6)})
        seen.to_parquet(path)
        (ctx.stage("backtest") / "DONE.json").unlink(missing_ok=True)
        earned[sign] = run_stage(ctx, "backtest")["metrics"]["net_return"]
    assert earned[1.0] > 0.2
    assert earned[-1.0] < 0 < earned[1.0]


def test_the_ladder_ends_at_the_full_rules(done: Context) -> None:
    content = json.loads((done.stage("backtest") / "backtest.json").read_text())
    steps = content["ablation"]
    assert steps[0]["rule"] == "naive"
    assert steps[0]["net_return"] == pytest.approx(content["naive"]["net_return"])
    assert steps[-1]["net_return"] == pytest.approx(content["metrics"]["net_return"])
    taken = sum(s["taken"] for s in steps)
    assert taken == pytest.approx(steps[0]["net_return"] - steps[-1]["net_return"])


def test_it_is_current_until_the_models_change(done: Context) -> None:
    run_stage(context(done.workspace.path), "backtest")
    assert [e["stage"] for e in happened(done, "stage_started")].count("backtest") == 1
    marker = done.marker("backtest")
    write_json(done.stage("backtest") / "DONE.json", marker | {"snapshot": "0" * 64})
    run_stage(context(done.workspace.path), "backtest")
    assert [e["stage"] for e in happened(done, "stage_started")].count("backtest") == 2


def test_real_index_is_the_benchmark(shared_prices: object) -> None:
    from pathlib import Path

    from vnquant.market.index import index_levels

    levels = index_levels(Path(str(shared_prices)))
    assert levels["date"].is_monotonic_increasing
    assert len(levels) > 5000
    assert np.isfinite(levels["close"]).all()
    assert index_levels(None).empty
