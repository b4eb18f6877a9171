"""The publisher beside a launch: start it, and say in the end what is saved and what is not."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vnquant.accelerators.topology import read
from vnquant.host import process
from vnquant.host.findings import Finding
from vnquant.host.stores import open_store
from vnquant.workspace import read_json

CONCLUDE = 120.0
"""Seconds that a finished run's controller waits for the last files to be saved."""


def preflight(workspace: Path, remote: str) -> list[Finding]:
    """Whether the remote can be used now."""
    return open_store(remote, cache=workspace / "publish" / "preflight").preflight()


def start(workspace: Path, run: str, remote: str) -> int:
    """Start a publisher of one run; returns its process id. It ends when the run is saved."""
    words = ["publish", "--watch", "--run", run, "--workspace", str(workspace)]
    return process.start(
        [sys.executable, "-m", "vnquant", *words],
        log=workspace / "publish" / "publisher.log",
        # Not as a word: an address may hold a password, and words can be seen by everybody.
        env={"RCLONE_REMOTE": remote},
        # On slow cores where there are any: training keeps the fast ones.
        cpus=read().cpus("e") or None,
    )


def conclude(pid: int, workspace: Path, run: str) -> str:
    """Wait for the publisher, for a while; one sentence about what is saved."""
    started = process.started_at(pid)
    until = time.monotonic() + CONCLUDE
    while started is not None and process.alive(pid, started) and time.monotonic() < until:
        time.sleep(0.2)
    state = read_json(workspace / "publish" / "status.json") or {}
    left, saved = state.get("backlog"), state.get("acknowledged", 0)
    where = state.get("store", "the remote")
    if left == 0:
        return f"Saved and verified on {where}: {saved} files."
    size = state.get("backlog_bytes", 0) / 1e6
    why = f" ({state['last_error']})" if state.get("last_error") else ""
    return (
        f"NOT saved on {where} yet: {left} files, {size:.1f} MB{why}. The publisher goes on "
        f"trying; `vnquant sync push --run {run} --workspace {workspace}` does it at once."
    )
