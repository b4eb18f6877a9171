"""Training shared by processes: same bits whoever trains what, and teams or parents that die."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.stages.conftest import SPEC, context, happened, rows
from vnquant.errors import RetryableError, Stopped, UsageError
from vnquant.spec import RunSpec
from vnquant.stages import run_stage
from vnquant.stages.context import Context
from vnquant.workspace import read_json

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two teams need two CPUs")
SIX: RunSpec = SPEC.model_copy(
    update={
        "symbols": ("ACB", "FPT", "HPG", "MBB", "SSI", "VCB"),
        "training": SPEC.training.model_copy(update={"epochs": 6}),
    }
)


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six symbols trained by two teams."""
    path = tmp_path_factory.mktemp("shared") / "w"
    run_stage(context(path, SIX, teams=2, stack_width=2), "train")
    return path


@pytest.fixture
def untrained(shared: Path, tmp_path: Path) -> Context:
    """The same with its features and its plan only."""
    shutil.copytree(shared, tmp_path / "w")
    ctx = context(tmp_path / "w", SIX, teams=2, stack_width=2, checkpoint_epochs=1)
    train = ctx.stage("train")
    plan = (train / "plan.json").read_bytes()
    shutil.rmtree(train.path)
    train.path.mkdir()
    (train / "plan.json").write_bytes(plan)
    (ctx.run.path / "events.jsonl").unlink()
    return ctx


def when(ctx: Context, kind: str, then: Callable[[], None]) -> threading.Thread:
    """Do something as soon as an event of a kind was recorded."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not happened(ctx, kind) and time.monotonic() < until:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def pids(ctx: Context) -> list[int]:
    return [e["pid"] for e in happened(ctx, "team_started")]


def gone(ctx: Context) -> bool:
    """Whether every team's process has ended; waits for it."""
    until = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in pids(ctx)):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_each_team_keeps_to_its_own_core_and_reports_what_it_did(shared: Path) -> None:
    ctx = context(shared, SIX)
    reports = read_json(ctx.run.path / "manifest.json")["stages"]["train"]["teams"]
    assert [r["threads"] for r in reports] == [1, 1]
    assert len({tuple(r["cpus"]) for r in reports}) == 2
    assert sum(r["units"] for r in reports) == len(
        read_json(ctx.stage("train") / "plan.json")["units"]
    )
    assert len(rows(ctx)) == len(SIX.symbols)


def test_one_process_gives_the_same_bits(shared: Path, untrained: Context) -> None:
    """The plan decides the arithmetic, and every team has as many threads as the others."""
    alone = context(untrained.workspace.path, SIX, threads=1, stack_width=2)
    run_stage(alone, "train")
    assert not happened(alone, "team_started")
    assert same_bits(rows(alone), rows(context(shared, SIX)))


def test_a_killed_team_costs_no_model(shared: Path, untrained: Context) -> None:
    killer = when(untrained, "checkpoint", lambda: os.kill(pids(untrained)[0], signal.SIGKILL))
    marker = run_stage(untrained, "train")
    killer.join()
    assert marker["failed"] == {}
    (lost,) = happened(untrained, "team_lost")
    assert lost["why"] == "signal 9"
    assert same_bits(rows(untrained), rows(context(shared, SIX)))


def test_when_every_team_is_killed_the_run_goes_on_later(shared: Path, untrained: Context) -> None:
    def kill() -> None:
        for pid in pids(untrained):
            os.kill(pid, signal.SIGKILL)

    killer = when(untrained, "checkpoint", kill)
    with pytest.raises(RetryableError, match="every team was lost"):
        run_stage(untrained, "train")
    killer.join()
    run_stage(context(untrained.workspace.path, SIX, teams=2), "train")
    assert happened(untrained, "resumed")
    assert same_bits(rows(untrained), rows(context(shared, SIX)))


def test_a_signal_reaches_every_team(shared: Path, untrained: Context) -> None:
    stopper = when(untrained, "epoch", lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped) as stopped:
        run_stage(untrained, "train")
    stopper.join()
    assert stopped.value.exit_code == 143
    assert gone(untrained)
    assert happened(untrained, "checkpoint")
    run_stage(context(untrained.workspace.path, SIX, teams=2), "train")
    assert same_bits(rows(untrained), rows(context(shared, SIX)))


def test_teams_save_and_leave_when_their_parent_is_killed(shared: Path, untrained: Context) -> None:
    workspace = untrained.workspace.path
    command = [sys.executable, "-m", "vnquant", "run", "train", "--teams", "2", "-q"]
    command += ["--spec", str(untrained.run.path / "spec.json"), "-w", str(workspace)]
    parent = subprocess.Popen(command)
    when(untrained, "epoch", parent.kill).join()
    parent.wait()
    assert gone(untrained)
    assert sorted((untrained.stage("train") / "checkpoints").glob("*.json"))
    assert len(rows(untrained)) < len(SIX.symbols), "it was killed too late to show anything"
    run_stage(context(workspace, SIX, teams=2), "train")
    assert same_bits(rows(untrained), rows(context(shared, SIX)))


def test_more_teams_than_cores_are_refused(untrained: Context) -> None:
    many = context(untrained.workspace.path, SIX, teams=len(os.sched_getaffinity(0)) + 1)
    with pytest.raises(UsageError, match="more than the"):
        run_stage(many, "train")
