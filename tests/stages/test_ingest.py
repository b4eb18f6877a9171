"""Stage ingest, and what follows from other prices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import SPEC, context, happened, started
from vnquant.errors import DataError, PartialFailure
from vnquant.market.sources import snapshot_hash
from vnquant.spec import RunSpec
from vnquant.stages import run_stage, run_stages
from vnquant.stages.context import Context
from vnquant.workspace import write_json


def with_snapshot(snapshot: str) -> RunSpec:
    return SPEC.model_copy(update={"data": SPEC.data.model_copy(update={"snapshot": snapshot})})


def spoil(raw: pd.DataFrame, *symbols: str) -> pd.DataFrame:
    """Every bar of the symbols has its high under its low."""
    out = raw.copy()
    out.loc[out["symbol"].isin(symbols), "high"] = out["low"] * 0.9
    return out


def test_it_writes_bars_calendar_and_report(ctx: Context, raw: pd.DataFrame) -> None:
    marker, stage = ctx.marker("ingest"), ctx.stage("ingest")
    bars = pd.read_parquet(stage / "bars.parquet")
    assert marker["snapshot"] == snapshot_hash(raw)
    assert len(bars) == marker["kept"] <= marker["bars"] == len(raw)
    assert len(pd.read_parquet(stage / "quarantine.parquet")) == marker["quarantined"]
    calendar = json.loads((stage / "calendar.json").read_text())
    assert [calendar[0], calendar[-1]] == [marker["first"], marker["last"]]
    assert calendar == sorted(set(calendar))
    assert "kept" in json.dumps(happened(ctx, "quality")[0])
    manifest = json.loads((ctx.run.path / "manifest.json").read_text())
    assert manifest["stages"]["ingest"]["snapshot"] == marker["snapshot"]


def test_prices_other_than_the_specs_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", with_snapshot("0" * 64))
    with pytest.raises(DataError, match="made from 000000000000") as caught:
        run_stages(ctx, ["features"])
    assert caught.value.exit_code == 3
    assert not ctx.stage("ingest").path.exists()
    assert started(ctx) == ["ingest"]


def test_a_marker_of_other_prices_than_the_specs_is_not_trusted(
    tmp_path: Path, raw: pd.DataFrame
) -> None:
    ctx = context(tmp_path / "w", with_snapshot(snapshot_hash(raw)))
    first = run_stage(ctx, "ingest")
    assert run_stage(ctx, "ingest") == first
    write_json(ctx.stage("ingest") / "DONE.json", {**first, "snapshot": "0" * 64})
    assert run_stage(ctx, "ingest") == first
    assert started(ctx) == ["ingest", "ingest"]


def test_a_symbol_without_a_good_bar_fails_alone(tmp_path: Path, raw: pd.DataFrame) -> None:
    ctx = context(tmp_path / "w")
    ctx.raw = spoil(raw, "VCB")
    with pytest.raises(PartialFailure, match="VCB: no usable bar") as caught:
        run_stages(ctx, ["features"])
    assert caught.value.exit_code == 4
    assert list(ctx.panel.symbols) == ["FPT"]
    assert ctx.marker("ingest")["quarantined"] >= int((raw["symbol"] == "VCB").sum())


def test_no_good_bar_at_all_is_invalid_data(tmp_path: Path, raw: pd.DataFrame) -> None:
    ctx = context(tmp_path / "w")
    ctx.raw = spoil(raw, "FPT", "VCB")
    with pytest.raises(DataError, match="no bar of any symbol"):
        run_stage(ctx, "ingest")
    assert ctx.stage("ingest").done() is None
    assert not ctx.stage("ingest").path.exists()


def test_other_prices_make_everything_after_them_again(ctx: Context, raw: pd.DataFrame) -> None:
    """Also the verdict and the forecasts, although the same symbols were trained."""
    first = run_stages(context(ctx.workspace.path, force=True), ["forecast", "deploy"])
    before = (ctx.stage("evaluate") / "forecasts.parquet").read_bytes()
    seen = len(started(ctx))
    again = context(ctx.workspace.path, force=True)
    again.stage("ingest").reopen()
    again.raw = raw.assign(volume=np.roll(raw["volume"].to_numpy(), 7))
    second = run_stages(again, ["forecast", "deploy"])
    assert second["deploy"]["set"] != first["deploy"]["set"]
    assert started(again)[seen:] == [
        "ingest",
        "features",
        "train",
        "forecast",
        "evaluate",
        "backtest",
        "deploy",
    ]
    assert (again.stage("evaluate") / "forecasts.parquet").read_bytes() != before
