"""The hybrid cycle with a machine that is lent: prepared, judged and deployed here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.colab.conftest import Emulator
from vnquant.events import read_events
from vnquant.host.records import launches

pytestmark = pytest.mark.colab


def words(workspace: Path, epochs: str = "2") -> list[str]:
    return [
        *(sys.executable, "-m", "vnquant", "train", "--mode", "hybrid", "--gpu", "T4"),
        *("--symbols", "FPT", "VCB", "--start", "2019-01-01", "--preset", "small"),
        *("--epochs", epochs, "--threads", "1", "--workspace", str(workspace)),
    ]


def job(workspace: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "vnquant", "jobs", "--json", "-w", str(workspace)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (found,) = json.loads(done.stdout)
    return dict(found)


def test_a_hybrid_cycle_survives_the_death_of_its_controller(
    emulator: Emulator, tmp_path: Path
) -> None:
    workspace = tmp_path / "w"
    command = words(workspace, "12")  # long enough to be found at work
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 240
        while time.monotonic() < until and child.poll() is None:
            records = [r for p in workspace.glob("runs/*") for r in launches(p)]
            if any(r["target"] == "colab" and "job" in r for r in records):
                break
            time.sleep(0.1)
        assert child.poll() is None, (tmp_path / "log").read_text()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert len(emulator.machines()) == 1
    assert (job(workspace)["state"], job(workspace)["phase"]) == ("interrupted", 2)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is at work already; following it" in done.stderr
    assert emulator.machines() == []
    found = job(workspace)
    assert (found["state"], found["target"], found["attempts"]) == (
        "finished", "colab", {"1": 1, "2": 2, "3": 1, "4": 1}
    )  # fmt: skip
    assert found["cost"]["h on colab"] > 0
    assert 0 < found["result"]["accuracy"] < 1
    (run,) = workspace.glob("runs/*")
    assert [r["target"] for r in launches(run)] == ["local", "colab", "local", "local"]
    assert (run / "report" / "DONE.json").exists()
    # What happened there is added to what happened here, once.
    begun = [e["stage"] for e in read_events(run / "events.jsonl") if e["event"] == "stage_started"]
    assert begun[:2] == ["ingest", "features"]
    assert begun.count("train") == 1
    assert begun[-1] == "report"


def test_where_no_machine_is_to_be_had_it_trains_here_if_asked(
    emulator: Emulator, tmp_path: Path
) -> None:
    emulator.control("refuse-gpu?gpu=T4&status=412")
    done = subprocess.run(
        [*words(tmp_path / "w"), "--fallback", "local"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Fell back from colab to local" in done.stderr
    found = job(tmp_path / "w")
    assert (found["state"], found["target"]) == ("finished", "local")
