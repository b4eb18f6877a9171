"""A run on a lent machine, from the first word to its release."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.colab.conftest import Emulator
from vnquant.host import launch as starting
from vnquant.host import status
from vnquant.host.colab.orphans import orphans
from vnquant.host.records import launches
from vnquant.host.targets import LaunchSpec
from vnquant.spec import MemberSpec, ModelSpec, RunSpec
from vnquant.workspace import Workspace

pytestmark = pytest.mark.colab
EPOCHS, ENDLESS = 300, 20_000


def spec(epochs: int = 2) -> RunSpec:
    return RunSpec(
        symbols=("FPT", "VCB"),
        data={"start": "2019-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),)),
        training={"epochs": epochs, "patience": None},
    )


def prepared(place: Path, of: RunSpec, target: str = "colab", **more: Any) -> LaunchSpec:
    workspace = Workspace(place).create()
    workspace.run(of).prepare()
    more = {"words": ("--threads", "1", "--checkpoint-epochs", "1"), **more}
    return LaunchSpec(
        target=target, workspace=workspace.path, run_id=of.run_id, stages=("train",), **more
    )


def controller(launch: LaunchSpec) -> subprocess.Popen[str]:
    """A controller in a process of its own, attending to a launch."""
    code = (
        "import sys; from vnquant.host import launch_actions as a\n"
        "from vnquant.host.targets import LaunchSpec\n"
        "sys.exit(a.attend(LaunchSpec.model_validate_json(sys.argv[1])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, launch.model_dump_json()],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(launch: LaunchSpec, event: str, seconds: float = 120) -> None:
    path = launch.run / "events.jsonl"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if path.exists() and f'"{event}"' in path.read_text():
            return
        time.sleep(0.2)
    raise TimeoutError(f"{event} never came")


def test_a_run_comes_back_whole_and_the_machine_is_released(
    emulator: Emulator, tmp_path: Path
) -> None:
    launch = prepared(tmp_path / "w", spec(), gpus=("T4",))
    assert all(f.ok for f in starting.preflight(launch))
    record = starting.begin(launch)
    assert record["hardware"] == "T4"
    lines: list[str] = []
    state = starting.follow(record, lines.append, lines.append)
    assert (state.status, state.exit_code) == ("exited", 0), lines
    assert any("train: done" in line for line in lines)
    assert list(launch.run.glob("train/models/*.safetensors"))
    assert json.loads((launch.run / "train" / "DONE.json").read_text()) is not None
    assert emulator.machines() == []
    (row,) = status.runs(launch.workspace)
    assert (row["state"], row["target"], row["exit_code"]) == ("finished", "colab", 0)
    assert not list((launch.workspace / "colab").glob("vnquant-*.json"))


def test_a_killed_controller_loses_nothing(emulator: Emulator, tmp_path: Path) -> None:
    launch = prepared(tmp_path / "w", spec(ENDLESS))
    child = controller(launch)
    wait_for(launch, "epoch")
    child.kill()
    child.communicate()
    assert len(emulator.machines()) == 1
    (row,) = status.runs(launch.workspace)
    assert (row["state"], row["target"]) == ("running", "colab")
    assert orphans(launch.workspace) == [], "it is at work"
    emulator.control("expire-proxy-tokens")
    emulator.control("drop-connections")
    (record,) = launches(launch.run)
    state = starting.stop(record, 90)
    assert state.exit_code == 143
    assert list(launch.run.glob("train/checkpoints/*.json"))
    assert emulator.machines() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_signal_saves_and_releases(
    emulator: Emulator, tmp_path: Path, signum: signal.Signals
) -> None:
    launch = prepared(tmp_path / "w", spec(ENDLESS))
    child = controller(launch)
    wait_for(launch, "epoch")
    child.send_signal(signum)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 143, out
    assert list(launch.run.glob("train/checkpoints/*.json"))
    assert emulator.machines() == []


def weights(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(run.glob("train/models/*.safetensors"))}


def test_three_reclaims_change_no_bit(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "BACKOFF", 0.2)
    of = spec(EPOCHS)
    launch = prepared(tmp_path / "w", of, losses=3, retries=0)
    child = controller(launch)
    drive = next((emulator.root / "state").glob("**/MyDrive"), None) or emulator.root / "state"
    seen: set[str] = set()
    for _ in range(3):
        until = time.monotonic() + 180
        while not (new := {p.name for p in saved(drive)} - seen):
            assert time.monotonic() < until, "no new checkpoint on Drive"
            assert child.poll() is None, child.communicate()
            time.sleep(0.2)
        seen |= new
        emulator.control("reclaim")
    out, _ = child.communicate(timeout=240)
    assert child.returncode == 0, out
    assert [r["attempt"] for r in launches(launch.run)] == [1, 2, 3, 4]
    assert out.count("taken the machine back") == 3
    assert emulator.machines() == []
    undisturbed = prepared(tmp_path / "here", of, target="local")
    assert starting.follow(starting.begin(undisturbed), print, print).exit_code == 0
    assert weights(launch.run) == weights(undisturbed.run)
    assert len(weights(launch.run)) == 2


def saved(drive: Path) -> list[Path]:
    return list(drive.glob("**/vnquant/checkpoints/*/*.json"))
