"""Trials: once each, whatever is killed; on a cluster of two nodes too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from vnquant.errors import UsageError
from vnquant.evaluation.recalibration import Curve
from vnquant.evaluation.statistics import rises
from vnquant.events import Events
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.spec import RunSpec
from vnquant.stages.context import Context, Options
from vnquant.studies import engines, readings, trials
from vnquant.studies.definition import Metric, Study
from vnquant.workspace import Workspace, read_json, write_json

OPTIONS = Options(threads=1)
FIGURES = ("rank_ic", "accuracy", "brier", "n", "validation_losses")


def figures(row: dict[str, Any]) -> list[Any]:
    return [row.get(k) for k in FIGURES]


CODE = """
import json, sys
from vnquant.spec import RunSpec
from vnquant.stages.context import Options
from vnquant.studies import engines, trials
from vnquant.studies.definition import Study
from vnquant.workspace import Workspace
given, place = json.load(open(sys.argv[1])), Workspace(sys.argv[2])
study = Study.model_validate(given["study"])
base = RunSpec.model_validate(given["base"])
folder = trials.folder_of(place, study, base)
engines.Local(folder, place, Options(threads=1))(trials.planned(study, base))
"""


def written(path: Path, study: Study, base: RunSpec) -> Path:
    content = {"study": study.model_dump(mode="json"), "base": base.model_dump(mode="json")}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, study: Study, base: RunSpec) -> Any:
    place = Workspace(tmp_path_factory.mktemp("straight"))
    folder = trials.folder_of(place, study, base)
    work = engines.Local(folder, place, OPTIONS)
    return place, folder, work(trials.planned(study, base))


@pytest.mark.slow
def test_every_trial_has_a_row_and_forecasts(straight: Any, study: Study, base: RunSpec) -> None:
    place, folder, (first, low, impossible) = straight
    assert (first["name"], low["name"]) == ("as given", "low")
    assert first["rank_ic"] != low["rank_ic"]
    assert 0 < first["hours"] < 1
    assert {"always_up", "ridge_pooled"} <= {r["name"] for r in first["rivals"]}
    assert "fewer than 100000" in impossible["failed"]
    one, two, other = trials.planned(study, base)
    assert len(trials.forecasts(folder, place, one)) == first["n"]
    assert trials.finished(folder, other) is None, "other prices may do"
    before = (folder / "trials" / two.key / trials.ROW).stat().st_mtime_ns
    assert engines.Local(folder, place, OPTIONS)([two]) == [low]
    assert (folder / "trials" / two.key / trials.ROW).stat().st_mtime_ns == before


@pytest.mark.slow
def test_every_metric_is_in_every_row(straight: Any, base: RunSpec) -> None:
    place, folder, (first, low, _) = straight
    for row in (first, low):
        assert all(np.isfinite(row[metric]) for metric in get_args(Metric))
    table = trials.forecasts(folder, place, trials.Trial("plain", base))
    steps = range(1, base.windows.horizon + 1)
    error = sum(table[f"mu_{h}"] - table[f"y_{h}"] for h in steps)
    assert first["mse_sum"] == pytest.approx((error**2).mean())


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["int8", "threshold"])
def test_other_readings_train_nothing(reading: Any, straight: Any, base: RunSpec) -> None:
    place, folder, (first, *_) = straight
    trial = trials.Trial(reading, base, reading)
    (row,) = engines.Local(folder, place, OPTIONS)([trial])
    assert row["run"] == first["run"]
    assert row["forecast_seconds"] > 0
    table = trials.forecasts(folder, place, trial)
    plain = trials.forecasts(folder, place, trials.Trial("plain", base))
    assert len(table) == len(plain)
    if reading == "int8":
        assert not table["p_model"].equals(plain["p_model"])
    else:
        assert table["p_model"].equals(plain["p_model"])


@pytest.mark.slow
def test_the_threshold_is_of_calibrated_probabilities(
    straight: Any, base: RunSpec, tmp_path: Path
) -> None:
    """The curve says "down" nearly always, which validation shows to be too rarely up."""
    shutil.copytree(straight[0].path, tmp_path / "w")
    place = Workspace(tmp_path / "w")
    run, curve = place.run(base), Curve(intercept=-0.1, slope=0.1, n=500)
    ctx = Context(place, run, Events(run.path / "events.jsonl"), OPTIONS)
    models = run.stage("walk_forward") / "models"
    for path in models.rglob("*.json"):
        write_json(path, {**read_json(path), "calibration": asdict(curve)})
    table, _ = readings.read(ctx, "threshold")
    chosen = []
    for fold, windows in ctx.folds.items():
        ends = {w.symbol: w.validation for w in windows}
        members = load_models(models / f"fold-{fold}", ends)
        known = with_outcomes(predict(members, ctx.panel, ends), ctx.panel, ends)
        p = curve(known["p_model"].to_numpy())
        assert known["p_up"].max() < 0.5
        chosen.append(readings.best_threshold(p, rises(known)))
        own = table[table["fold"] == fold]
        np.testing.assert_array_equal(
            own["p_up"], readings.moved(curve(own["p_model"].to_numpy()), chosen[-1])
        )
    assert min(chosen) < 0.5


@pytest.mark.slow
def test_the_models_as_they_are_forecast_what_was_judged(straight: Any, base: RunSpec) -> None:
    place, folder, (first, *_) = straight
    trial = trials.Trial("timed", base, "float32")
    (row,) = engines.Local(folder, place, OPTIONS)([trial])
    assert row["forecast_seconds"] > 0
    assert row["brier"] == pytest.approx(first["brier"], abs=1e-9)
    assert row["ece_uncalibrated"] == pytest.approx(first["ece_uncalibrated"], abs=1e-9)
    assert first["ece_uncalibrated"] != first["ece"]


@pytest.mark.slow
def test_sigkill_then_the_same_command_goes_on(
    straight: Any, study: Study, base: RunSpec, tmp_path: Path
) -> None:
    """Killed in the second trial: the first is not carried out again; all rows are the same."""
    given = tmp_path / "given.json"
    given.write_text(
        json.dumps({"study": study.model_dump(), "base": base.model_dump(mode="json")})
    )
    place = Workspace(tmp_path / "w")
    folder = trials.folder_of(place, study, base)
    one, two, _ = trials.planned(study, base)
    child = subprocess.Popen([sys.executable, "-c", CODE, str(given), str(place.path)])
    begun = place.run(two.spec).path / "events.jsonl"
    until = time.monotonic() + 120
    while not begun.exists():
        assert time.monotonic() < until
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    kept = (folder / "trials" / one.key / trials.ROW).stat().st_mtime_ns
    assert trials.finished(folder, two) is None
    rows = engines.Local(folder, place, OPTIONS)(trials.planned(study, base))
    assert (folder / "trials" / one.key / trials.ROW).stat().st_mtime_ns == kept
    assert [figures(r) for r in rows] == [figures(r) for r in straight[2]]


@pytest.mark.parametrize(
    ("resources", "device", "threads", "per_gpu", "expected"),
    [
        ({"CPU": 20.0}, "auto", 4, 1, (5, 0)),
        ({"CPU": 2.0}, "cpu", 8, 3, (1, 0)),
        ({"CPU": 32.0, "GPU": 2.0}, "auto", 1, 1, (2, 1)),
        ({"CPU": 32.0, "GPU": 2.0}, "auto", 4, 4, (8, 0.25)),
        ({"CPU": 32.0, "GPU": 2.0}, "cpu", 1, 1, (32, 0)),
        ({"CPU": 1.0, "GPU": 8.0}, "cuda", 1, 2, (1, 0.5)),
    ],
)
def test_trials_at_a_time_are_what_the_cluster_has_room_for(
    resources: dict[str, float],
    device: str,
    threads: int,
    per_gpu: int,
    expected: tuple[int, float],
) -> None:
    assert engines.room(resources, device, threads, per_gpu) == expected


def test_a_cluster_without_gpus_says_so() -> None:
    with pytest.raises(UsageError, match="the cluster has no GPU"):
        engines.room({"CPU": 4.0}, "cuda", 1)


@pytest.mark.slow
def test_two_nodes_of_which_one_is_killed_lose_no_finished_trial(
    straight: Any, study: Study, base: RunSpec, tmp_path: Path, repository: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    script = repository / "tests" / "studies" / "two_nodes.py"
    given = tmp_path / "given.json"
    given.write_text(
        json.dumps({"study": study.model_dump(), "base": base.model_dump(mode="json")})
    )
    environment = {**os.environ, "PYTHONPATH": str(repository), "RAY_USAGE_STATS_ENABLED": "0"}
    child = subprocess.Popen(
        [sys.executable, str(script), str(given), str(tmp_path / "w"), str(tmp_path / "ray")],
        stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = child.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    assert child.returncode == 0, out
    found = json.loads(out.splitlines()[-1])
    assert found["nodes"] == {"before": 2, "after": 1}
    assert [figures(r) for r in found["rows"]] == [figures(r) for r in straight[2]]
