"""A set is watched on sessions that came after it was judged."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import SPEC
from vnquant.errors import DataError
from vnquant.inference.deployed import open_run
from vnquant.inference.monitor import to_text, watch
from vnquant.market.sources import open_source
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
    calibrated = ((later["p_up"] - rose) ** 2).mean()
    assert found["realised"]["brier"] == pytest.approx(calibrated)
    assert calibrated != pytest.approx(((later["p_model"] - rose) ** 2).mean())
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
    assert ready.last_session is not None
    with pytest.raises(DataError, match="known outcome"):
        watch(ready, prices, dt.date.fromisoformat(ready.last_session))


def test_the_command(ctx: Context, prices: Path) -> None:
    def monitor(*words: str) -> subprocess.CompletedProcess[str]:
        own = ["--workspace", str(ctx.workspace.path), "--run", ctx.spec.run_id, *words]
        program = [sys.executable, "-m", "vnquant", "monitor", *own]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    since = ("--prices", str(prices), "--since", str(SINCE))
    done = monitor(*since, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["since"] == str(SINCE)
    text = monitor(*since).stdout
    assert "realised:" in text
    assert "expected:" in text
    for words, said in (
        ((), "--prices"),
        (("--prices", str(prices), "--since", "soon"), "2024-01-31"),
    ):
        refused = monitor(*words)
        assert refused.returncode == 2
        assert said in refused.stderr
