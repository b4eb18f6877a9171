"""What is read of a run, and what is not when a stage has not finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.report.made import DATES, SPEC, run_in
from vnquant.report import digests, read_sources
from vnquant.report.sources import FILES, PAST_SESSIONS, ic_by_date
from vnquant.workspace import Workspace, read_json, write_json


def test_everything_of_a_finished_run_is_read(tmp_path: Path) -> None:
    found = read_sources(run_in(tmp_path))
    assert found.verdict is not None
    assert found.quality is not None
    assert found.deployment is not None
    assert found.backtest == {"sharpe": 0.4, "AAA": "BBB"}
    assert [f["symbol"] for f in found.forecasts] == ["AAA", "BBB"]
    assert [t.history[2] for t in found.trainings] == [(1.0, 1.3)] * 3
    assert [(t.symbol, t.best_epoch) for t in found.pooled] == [("pool", 0)]
    assert found.failed == {"CCC": "CCC diverged"}
    assert found.unforecast == {"CCC": "no CCC"}
    assert found.ic is not None
    assert len(found.ic) == len(DATES)
    assert found.equity is not None
    assert found.closes is not None
    assert set(found.closes["symbol"]) == set(SPEC.symbols)


def test_nothing_is_read_of_a_run_that_has_not_begun(tmp_path: Path) -> None:
    found = read_sources(Workspace(tmp_path).create().run(SPEC))
    assert (found.verdict, found.quality, found.ic, found.equity, found.closes) == (None,) * 5
    assert (found.forecasts, found.trainings, found.manifest) == ((), (), {})


@pytest.mark.parametrize("stage", sorted(FILES))
def test_a_stage_without_its_marker_counts_as_absent(tmp_path: Path, stage: str) -> None:
    run = run_in(tmp_path)
    run.stage(stage).reopen()
    assert [name for name in digests(run) if name.startswith(f"{stage}/")] == []
    found = read_sources(run)
    absent = {
        "ingest": found.quality is None and found.closes is None,
        "evaluate": found.verdict is None and found.ic is None,
        "backtest": found.backtest is None and found.equity is None,
        "deploy": found.deployment is None,
        "forecast": found.forecasts == () and found.unforecast == {},
    }
    assert {name for name, gone in absent.items() if gone} == {stage}


def test_a_damaged_file_counts_as_absent(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run.stage("evaluate") / "verdict.json").write_text('{"gate": ')
    assert read_sources(run).verdict is None


def test_only_the_last_sessions_before_a_forecast_are_kept(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    dates = pd.bdate_range("2022-01-03", periods=PAST_SESSIONS + 7)
    bars = pd.DataFrame({"symbol": "AAA", "date": dates, "close": np.arange(len(dates)) + 1.0})
    bars.to_parquet(run.stage("ingest") / "bars.parquet")
    closes = read_sources(run).closes
    assert closes is not None
    assert closes["close"].tolist() == [float(n) for n in range(8, PAST_SESSIONS + 8)]


def test_digests_change_with_what_is_read_but_not_with_the_report_itself(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    before = digests(run)
    manifest = read_json(run.path / "manifest.json")
    manifest["stages"]["report"] = {"finished": "2023-03-01T11:00:00+00:00"}
    write_json(run.path / "manifest.json", manifest)
    assert digests(run) == before
    write_json(run.stage("backtest") / "backtest.json", {"sharpe": 0.5})
    after = digests(run)
    assert {k for k in before if before[k] != after[k]} == {"backtest/backtest.json"}


def test_correlations_come_from_the_forecasts_where_evaluate_wrote_none(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run.stage("evaluate") / "ic.parquet").unlink()
    order = np.arange(5.0)
    table = pd.DataFrame(
        {
            "date": np.repeat(pd.to_datetime(["2023-01-03", "2023-01-02"]), 5),
            "mu_1": np.tile(order, 2),
            "mu_2": 0.0,
            "y_1": np.concatenate([order, -order]),
            "y_2": 0.0,
        }
    )
    table.to_parquet(run.stage("evaluate") / "forecasts.parquet")
    found = read_sources(run).ic
    assert found is not None
    assert found["date"].is_monotonic_increasing
    np.testing.assert_allclose(found["rank_ic"], [-1.0, 1.0])
    np.testing.assert_allclose(found["ic"], [-1.0, 1.0])
    assert ic_by_date(table.iloc[:4])["rank_ic"].isna().all()  # four symbols are too few
