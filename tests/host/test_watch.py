"""``vnquant status --watch``: what the live table shows, and that Ctrl-C ends it well."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from vnquant.events import Events
from vnquant.host.cli_watch import watch
from vnquant.host.jobs import Jobs
from vnquant.host.records import now, save
from vnquant.spec import RunSpec
from vnquant.workspace import Workspace

SPEC = RunSpec(
    symbols=("FPT", "VCB"),
    data={"start": "2019-01-01"},
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
)
OTHER = SPEC.model_copy(update={"symbols": ("HPG",)})


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Runs on two targets, and a cycle."""
    place = Workspace(tmp_path).create()
    for spec, target, code in ((SPEC, "colab", 0), (OTHER, "cpu", 3)):
        run = place.run(spec)
        run.prepare()
        Events(run.path / "events.jsonl").emit("stage_started", stage="train")
        record = {"launch": "a", "run": spec.run_id, "workspace": str(tmp_path), "target": target}
        save({**record, "started": now(), "ended": now(), "exit_code": code, "cleared": True})
    jobs = Jobs(tmp_path)
    jobs.save(jobs.take_up("hybrid", SPEC, "colab", None))
    return tmp_path


def test_it_shows_every_run_on_every_target_and_the_cycle(workspace: Path) -> None:
    out = io.StringIO()
    watch(workspace, Console(file=out, width=200, force_terminal=True), seconds=0, times=2)
    text = out.getvalue()
    for word in (SPEC.run_id, OTHER.run_id, "colab", "cpu", "finished", "failed", "train"):
        assert word in text
    assert "hybrid cycle" in text
    assert "interrupted, phase 1 of 4, prepare" in text


def test_what_stands_in_a_record_is_no_markup(workspace: Path) -> None:
    (record,) = (workspace / "runs" / SPEC.run_id / "launches").glob("*.json")
    record.write_text(record.read_text().replace('"colab"', '"[bold red]x[/nowhere]"'))
    out = io.StringIO()
    watch(workspace, Console(file=out, width=200), seconds=0, times=1)
    assert "[bold red]x[/nowhere]" in out.getvalue()


def test_a_new_run_appears_and_ctrl_c_ends_it_on_a_terminal(workspace: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["status", "--watch", "--workspace", str(workspace)]
    child = subprocess.Popen(
        [sys.executable, "-m", "vnquant", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    try:
        reads_until(ours, SPEC.run_id)
        late = SPEC.model_copy(update={"symbols": ("VNM",)})
        Workspace(workspace).run(late).prepare()
        reads_until(ours, late.run_id)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def reads_until(terminal: int, word: str) -> None:
    # Python's start may take long where other tests keep every core busy.
    seen, until = "", time.monotonic() + 120
    while word not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
        assert ready, seen
        seen += os.read(terminal, 65536).decode(errors="replace")


def test_watch_and_json_contradict() -> None:
    words = [sys.executable, "-m", "vnquant", "status", "--watch", "--json"]
    assert subprocess.run(words, capture_output=True).returncode == 2
