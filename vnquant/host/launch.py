"""Start a run on a target, attend to it, and find it again after this program has gone.

Every launch is a record in its run's folder, written before anything starts::

    runs/<run id>/launches/<launch>.json    target, time, exit code, image digest; no secrets

So a controller that is killed loses nothing: the run goes on, and the next command finds it.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

from vnquant.errors import RETRY, RetryableError
from vnquant.host.findings import Finding
from vnquant.host.targets import LaunchSpec, Record, State, Target, open_target
from vnquant.workspace import read_json, write_json

Say = Callable[[str], None]
LEAST_DISK = 2_000_000_000
LEAST_MEMORY = 1_500_000_000
POLL = 0.5
PATIENCE = 30.0
"""Seconds of silence from a provider after which the user is told."""


def preflight(launch: LaunchSpec) -> list[Finding]:
    """Everything that can be known to go wrong before anything starts."""
    free = shutil.disk_usage(launch.workspace).free
    memory = psutil.virtual_memory()
    found = []
    if free < LEAST_DISK:
        what = f"{free / 1e9:.1f} GB are free on the disk of {launch.workspace}"
        found.append(Finding("error", what, f"free at least {LEAST_DISK / 1e9:.0f} GB"))
    if launch.memory is not None and launch.memory > memory.total:
        what = f"--memory {launch.memory / 1e9:.1f} GB is more than this machine has"
        found.append(Finding("error", what, f"give at most {memory.total / 1e9:.1f} GB"))
    if memory.available < LEAST_MEMORY:
        what = f"{memory.available / 1e9:.1f} GB of memory are free"
        found.append(Finding("error", what, "close other programs"))
    for record in launches(launch.run):
        if "ended" not in record and settle(record).status == "running":
            what = f"this run is at work already (launch {record['launch']})"
            fix = f"watch it with `vnquant logs {launch.run_id} -f`, or stop it"
            found.append(Finding("error", what, fix))
    return [*found, *open_target(launch.target).preflight(launch)]


def begin(launch: LaunchSpec, *, attempt: int = 1) -> Record:
    """Write the record, start, and complete the record.

    Raises:
        UsageError, RetryableError: it did not start; the record says so.
    """
    record: Record = {
        "launch": uuid.uuid4().hex[:12],
        "run": launch.run_id,
        "target": launch.target,
        "workspace": str(launch.workspace),
        "spec": launch.model_dump(mode="json"),
        "attempt": attempt,
        "started": _now(),
        "host": {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()},
    }
    _save(record)
    try:
        record |= open_target(launch.target).start(launch, record)
    except Exception as error:
        _save({**record, "ended": _now(), "exit_code": None, "note": str(error)})
        raise
    _save(record)
    return record


def settle(record: Record) -> State:
    """Ask what became of a launch; if it has ended, record that and clear up."""
    target = open_target(record["target"])
    state = target.poll(record)
    if state.status not in ("exited", "lost") or "ended" in record:
        return state
    kept = read_json(_path(record))
    if isinstance(kept, dict) and "ended" in kept:
        # Another command was faster, and has cleared up already.
        record |= kept
        return State("exited", kept["exit_code"], kept["note"])
    record |= {"ended": _now(), "exit_code": state.exit_code, "note": state.note}
    _save(record)
    target.remove(record)
    return state


def follow(record: Record, show: Say, say: Say) -> State:
    """Show a launch's output until it ends. A provider that does not answer ends nothing."""
    target = open_target(record["target"])
    reader = threading.Thread(target=_copy, args=(target, record, show), daemon=True)
    reader.start()
    silent: float | None = None
    told = False
    while (state := target.poll(record)).status in ("running", "unknown"):
        if state.status == "running":
            silent, told = None, False
        else:
            silent = silent or time.monotonic()
            if not told and time.monotonic() - silent > PATIENCE:
                told = True
                say(f"The engine does not answer ({state.note}). The run goes on without it.")
        time.sleep(POLL)
    reader.join(timeout=10)
    return settle(record)


def _copy(target: Target, record: Record, show: Say) -> None:
    for line in target.output(record, follow=True):
        show(line)


def attend(launch: LaunchSpec, record: Record, show: Say, say: Say) -> State:
    """Follow a launch; start it again while that may help and the budget lasts."""
    while True:
        state = follow(record, show, say)
        again = state.status == "lost" or state.exit_code == RETRY
        if not again or record["attempt"] > launch.retries:
            return state
        wait = 5.0 * 3 ** (record["attempt"] - 1)
        why = state.note or "it ended with exit code 5"
        say(f"Starting again in {wait:.0f} s, where it stood ({why}).")
        time.sleep(wait)
        record = begin(launch, attempt=record["attempt"] + 1)


def stop(record: Record, grace: float) -> State:
    """Ask a launch to save and leave; returns what became of it."""
    open_target(record["target"]).stop(record, grace)
    return settle(record)


def launches(run: Path) -> list[Record]:
    """The records of a run's launches, oldest first."""
    found = [read_json(p) for p in (run / "launches").glob("*.json")]
    records = [r for r in found if isinstance(r, dict) and "launch" in r]
    return sorted(records, key=lambda r: str(r["started"]))


def latest(run: Path) -> Record:
    """The newest launch of a run.

    Raises:
        RetryableError: it has none.
    """
    records = launches(run)
    if not records:
        raise RetryableError(
            "this run was not started by the controller",
            where=str(run),
            fix="its events are in events.jsonl",
        )
    return records[-1]


def _path(record: Record) -> Path:
    run = Path(str(record["workspace"])) / "runs" / str(record["run"])
    return run / "launches" / f"{record['launch']}.json"


def _save(record: Record) -> None:
    write_json(_path(record), record)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
