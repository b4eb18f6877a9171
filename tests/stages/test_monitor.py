"""A set is watched on sessions that came after it was judged."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from tests.stages.conftest import SPEC
from vnquant.cli import cli
from vnquant.errors import DataError
from vnquant.inference.deployed import open_run
from vnquant.inference.monitor import to_text, watch
from vnquant.market.sources import open_source
from vnquant.stages import run_stage
from vnquant.stages.context import Context

SINCE = dt.date(2023, 6, 30)


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own prices: what came after SINCE stands for news."""
    path = tmp_path_factory.mktemp("newer") / "prices.parquet"
    open_source("synthetic", None).load(SPEC.symbols, start=SPEC.data.start, end=None).to_parquet(
        path
    )
    return path


def test_weeks_after_the_date_agree_with_what_was_judged(ctx: Context, prices: Path) -> None:
    found = watch(open_run(ctx.workspace, ctx.spec.run_id), prices, SINCE)
    judged = pd.read_parquet(ctx.stage("evaluate") / "forecasts.parquet")
    later = judged[pd.to_datetime(judged["date"]) > pd.Timestamp(SINCE)]
    assert sum(week["n"] for week in found["weeks"]) == found["realised"]["n"] == len(later)
    rose = later[[f"y_{h}" for h in range(1, 6)]].sum(axis=1) > 1e-6
    right = (later["p_up"] > 0.5) == rose
    assert found["realised"]["accuracy"] == pytest.approx(right.mean())
    by_weeks = sum(week["accuracy"] * week["n"] for week in found["weeks"])
    assert by_weeks == pytest.approx(right.sum())
    assert all(week["week"] > "2023-06-25" for week in found["weeks"])
    assert len(found["stability"]) == 50
    text = to_text(found)
    assert text.count("\n") == len(found["weeks"]) + 4 + max(0, len(found["alerts"]) - 1)


def test_a_market_turned_wild_is_an_alert(ctx: Context, prices: Path, tmp_path: Path) -> None:
    bars = pd.read_parquet(prices)
    late = pd.to_datetime(bars["date"]).dt.date > SINCE
    factor = np.where(late & (np.arange(len(bars)) % 2 == 0), 0.95, 1.0)
    for name in ("open", "high", "low", "close", "adj_close"):
        bars[name] = (bars[name] * factor).round(2)
    bars["volume"] = np.where(late, bars["volume"] * 40, bars["volume"])
    changed = tmp_path / "wild.parquet"
    bars.to_parquet(changed)
    ready = open_run(ctx.workspace, ctx.spec.run_id)
    calm, wild = (watch(ready, path, SINCE) for path in (prices, changed))
    assert any("features are distributed otherwise" in alert for alert in wild["alerts"])
    worst = [max(v for v in f["stability"].values() if v is not None) for f in (calm, wild)]
    assert worst[1] > 2 * worst[0]


def test_without_news_it_says_what_to_do(ctx: Context, prices: Path) -> None:
    ready = open_run(ctx.workspace, ctx.spec.run_id)
    with pytest.raises(DataError, match="known outcome"):
        watch(ready, prices, dt.date.fromisoformat(ready.last_session))


def test_the_command(ctx: Context, prices: Path) -> None:
    run_stage(ctx, "backtest")
    words = ["monitor", "--workspace", str(ctx.workspace.path), "--run", ctx.spec.run_id]
    done = CliRunner().invoke(
        cli, [*words, "--prices", str(prices), "--since", str(SINCE), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["since"] == str(SINCE)
    text = CliRunner().invoke(cli, [*words, "--prices", str(prices), "--since", str(SINCE)])
    assert "realised:" in text.output
    assert "expected:" in text.output
    assert CliRunner().invoke(cli, words).exception is not None
    wrong = CliRunner().invoke(cli, [*words, "--prices", str(prices), "--since", "soon"])
    assert "like 2024-01-31" in str(wrong.exception)
