"""What `vnquant status` and `vnquant doctor` tell."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from vnquant.events import TICK, Events
from vnquant.host import cli_launch, doctor, status
from vnquant.spec import RunSpec
from vnquant.workspace import Workspace, read_json, write_json

SPEC = RunSpec(
    symbols=("FPT",),
    data={"start": "2019-01-01"},
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
)


def test_ticks_leave_the_share_and_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    events = Events(tmp_path / "events.jsonl")
    events.progress("train", 400, 1000)  # restored from a checkpoint: no rate yet
    assert read_json(tmp_path / "progress.json")["seconds_left"] is None
    clock[0] += TICK / 2
    events.progress("train", 450, 1000)
    assert read_json(tmp_path / "progress.json")["done"] == 400, "not at every tick"
    clock[0] += 9.5
    events.progress("train", 500, 1000, "epoch 2")
    tick = read_json(tmp_path / "progress.json")
    assert tick["seconds_left"] == pytest.approx(50, rel=0.01)
    assert tick["note"] == "epoch 2"
    assert not (tmp_path / "events.jsonl").exists(), "shown, not recorded"


def test_a_running_run_shows_share_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vnquant.host.targets import State

    run = Workspace(tmp_path).create().run(SPEC)
    run.prepare()
    events = Events(run.path / "events.jsonl")
    events.emit("stage_started", stage="train", run=SPEC.run_id)
    events.emit("epoch", epoch=3)
    tick = {"stage": "train", "done": 1, "total": 4, "time": time.time(), "seconds_left": 3700}
    write_json(run.path / "progress.json", tick)
    record = {"launch": "x", "started": "1", "target": "cpu", "run": SPEC.run_id}
    write_json(run.path / "launches" / "x.json", {**record, "workspace": str(tmp_path)})
    monkeypatch.setattr(status, "settle", lambda _: State("running"))
    (row,) = status.runs(tmp_path)
    assert (row["state"], row["stage"], row["progress"], row["epoch"]) == (
        "running", "train", 0.25, 3,
    )  # fmt: skip
    assert 3600 < row["seconds_left"] <= 3700
    text = status.to_text([row])
    assert " 25% " in text
    assert " 1:01:" in text
    monkeypatch.setattr(status, "settle", lambda _: State("unknown"))
    assert status.runs(tmp_path)[0]["state"] == "unknown"


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({"exit_code": 0}, "finished"),
        ({"exit_code": 4}, "finished"),
        ({"exit_code": 143}, "stopped"),
        ({"exit_code": 2}, "failed"),
        ({"exit_code": None}, "lost"),
    ],
)
def test_ended_runs(tmp_path: Path, record: dict[str, int | None], state: str) -> None:
    run = Workspace(tmp_path).create().run(SPEC)
    run.prepare()
    ended = {"launch": "x", "started": "1", "ended": "2", "target": "cpu", "cleared": True}
    write_json(run.path / "launches" / "x.json", {**ended, **record})
    (row,) = status.runs(tmp_path)
    assert row["state"] == state
    assert row["progress"] is None


def test_status_of_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli_launch.status, ["-w", str(tmp_path)])
    assert (done.exit_code, done.output) == (0, "No runs yet.\n")
    assert status.publisher(tmp_path) is None


def test_doctor_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 0)
    monkeypatch.setattr(doctor, "LEAST_DISK", 0)
    found = doctor.examine(tmp_path, f"directory:{tmp_path / 's'}")
    assert all(f.fix for f in found if f.level != "ok")
    said = " ".join(map(str, found))
    for missing in ("docker buildx", "docker compose", "rclone"):
        assert f"{missing} is not there" in said
    assert "no container engine answers" in said
    assert f"{tmp_path / 's'} can be written" in said
    assert all(f.ok for f in found), "what only some target needs is a warning"


def test_doctor_ends_with_3_where_nothing_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    monkeypatch.setattr(doctor, "LEAST_DISK", 2**60)
    done = CliRunner().invoke(cli_launch.doctor, ["-w", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 3
    assert "error" in done.output
