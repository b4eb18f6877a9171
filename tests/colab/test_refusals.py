"""What Colab may answer instead of what was asked for."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.colab.conftest import Emulator
from tests.colab.test_run import ENDLESS, controller, prepared, spec, wait_for
from vnquant.errors import RetryableError, UsageError
from vnquant.host import launch as starting
from vnquant.host.colab.orphans import orphans
from vnquant.host.colab.session import allocate, release, session, usage
from vnquant.host.colab.spending import over_limit
from vnquant.host.findings import refuse_errors
from vnquant.host.records import launches, now, save

pytestmark = pytest.mark.colab


def test_a_refused_gpu_falls_back_and_nothing_is_left(emulator: Emulator, tmp_path: Path) -> None:
    emulator.control("refuse-gpu?gpu=A100&status=412")
    emulator.control("refuse-gpu?gpu=L4&status=400")
    colab = session(tmp_path, "x")
    said: list[str] = []
    endpoint, hardware = allocate(colab, ("A100", "L4", "T4"), said.append)
    assert hardware == "T4"
    assert [line.partition(":")[0] for line in said] == ["A100", "L4"]
    assert [m["accelerator"] for m in emulator.machines()] == ["T4"]
    assert release(colab, endpoint)
    with pytest.raises(RetryableError, match="no machine was granted"):
        allocate(colab, ("A100",), said.append)
    assert emulator.machines() == []


def test_an_unknown_gpu_is_refused_before_it_becomes_an_a100(
    emulator: Emulator, tmp_path: Path
) -> None:
    launch = prepared(tmp_path / "w", spec(), gpus=("H1000",))
    with pytest.raises(UsageError, match="H1000"):
        refuse_errors(starting.preflight(launch))
    assert emulator.machines() == []


def test_an_orphan_is_seen_and_cleaned_up(emulator: Emulator, tmp_path: Path) -> None:
    """Its controller was killed between the grant and the note of it."""
    endpoint, _ = allocate(session(tmp_path, "gone"), ("T4",), print)
    vnquant = [sys.executable, "-m", "vnquant"]
    words = ["--workspace", str(tmp_path)]
    seen = subprocess.run([*vnquant, "status", *words], capture_output=True, text=True, check=False)
    assert endpoint in seen.stdout, seen.stderr
    assert "Costs money" in seen.stdout
    done = subprocess.run(
        [*vnquant, "colab", "cleanup", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "released" in done.stdout) == (0, True), done.stderr
    assert emulator.machines() == []
    assert orphans(tmp_path) == []


def test_units_are_what_the_balance_has_lost(emulator: Emulator, tmp_path: Path) -> None:
    colab = session(tmp_path, "x")
    before = usage(colab)
    endpoint, _ = allocate(colab, ("H100",), print)
    record = {"launch": "x", "run": "0" * 12, "workspace": str(tmp_path), "started": now(),
              "balance": before[0] if before else None, "spec": {"max_units": 0.01}}  # fmt: skip
    save(record)
    until = time.monotonic() + 120  # H100s are lent at 9 units an hour there
    while not (why := over_limit(record)):
        assert time.monotonic() < until
        time.sleep(1)
    assert why == "the limit of 0.01 compute units is used up"
    assert not over_limit({**record, "spec": {"max_units": 50.0}})
    assert release(colab, endpoint)


def test_a_full_drive_is_refused_and_the_machine_given_back(
    emulator: Emulator, tmp_path: Path
) -> None:
    drive = emulator.root / "state" / "drive" / "dev@example.test" / "vnquant"
    drive.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(drive)], check=True)
    try:
        launch = prepared(tmp_path / "w", spec())
        child = controller(launch)
        out, _ = child.communicate(timeout=240)
    finally:
        subprocess.run(["umount", str(drive)], check=True)
    assert child.returncode == 2, out
    assert "Drive has 105 MB left; free 500 MB" in out
    assert emulator.machines() == []
    assert len(launches(launch.run)) == 1


def test_an_outage_and_a_lost_record_are_not_a_lost_machine(
    emulator: Emulator, tmp_path: Path
) -> None:
    launch = prepared(tmp_path / "w", spec(ENDLESS))
    record = starting.begin(launch)
    colab = session(launch.workspace, record["launch"])
    colab.state.unlink()
    emulator.control("outage?status=503&count=30")
    assert starting.settle(record).status == "unknown"
    emulator.control("outage?status=503&count=0")
    assert starting.settle(record).status in ("unknown", "running")
    assert starting.settle(record).status == "running"
    assert len(emulator.machines()) == 1
    assert starting.stop(record, 90).exit_code == 143
    assert emulator.machines() == []


def test_the_spending_limit_stops_and_saves(emulator: Emulator, tmp_path: Path) -> None:
    launch = prepared(tmp_path / "w", spec(ENDLESS), max_hours=60 / 3600)
    child = controller(launch)
    wait_for(launch, "epoch")
    out, _ = child.communicate(timeout=180)
    assert child.returncode == 143, out
    assert "hours is used up" in out
    assert emulator.machines() == []
    assert list(launch.run.glob("train/checkpoints/*.json"))
    assert len(launches(launch.run)) == 1
    with pytest.raises(UsageError, match="used up"):
        starting.begin(launch)
