"""Start a run on a target, attend to it, and find it again after this program has gone.

Every launch is a record in its run's folder, written before anything starts::

    runs/<run id>/launches/<launch>.json    target, time, exit code, image digest; no secrets

So a controller that is killed loses nothing: the run goes on, and the next command finds it.
Several programs may look after one launch (controller, publisher, ``vnquant status``): the first
that sees its end records it, and from then on the record counts more than what the provider knows.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from vnquant.errors import RETRY, RetryableError
from vnquant.host.cpus import parse, usable
from vnquant.host.findings import Finding
from vnquant.host.records import launches, now, refreshed, save
from vnquant.host.targets import LaunchSpec, Record, State, Target, open_target

Say = Callable[[str], None]
LEAST_DISK = 2_000_000_000
LEAST_MEMORY = 1_500_000_000
POLL = 0.5
PATIENCE = 30.0
"""Seconds of silence from a provider after which the user is told."""
BACKOFF = 5.0
"""Seconds before the first new start; three times as long before each further one."""
AGAIN = 60.0
"""Seconds before asking once more for a machine that was not to be had."""
KILLED = (137, 143, 255)
"""Exit codes of a container that its engine took along when it stopped."""


class Wish:
    """How often somebody has asked a launch to end. Signal handlers call `ask`."""

    def __init__(self) -> None:
        self.times = 0
        self._asked = threading.Event()

    def ask(self, *_: object) -> None:
        self.times += 1
        self._asked.set()

    def pause(self, seconds: float) -> bool:
        """Sleep, but not through a wish; returns whether there is one."""
        self._asked.wait(seconds)
        self._asked.clear()
        return self.times > 0


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
    if launch.cpuset is not None and not usable(parse(launch.cpuset)):
        what = f"this machine has none of the CPUs {launch.cpuset}"
        found.append(Finding("error", what, f"--cpuset takes 0 to {(os.cpu_count() or 1) - 1}"))
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
        "started": now(),
        "host": {"name": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()},
    }
    save(record)
    try:
        record |= open_target(launch.target).start(launch, record)
    except Exception as error:
        save({**record, "ended": now(), "exit_code": None, "note": str(error)})
        raise
    save(record)
    return record


def poll(record: Record, target: Target) -> State:
    """What a launch is doing; an end that anybody has recorded is final."""
    if "ended" not in record:
        state = target.poll(record)
        # Whoever recorded the end may have removed the container too: then it only looks lost.
        if state.status in ("running", "unknown") or "ended" not in refreshed(record):
            return state
    code = record.get("exit_code")
    return State("lost" if code is None else "exited", code, str(record.get("note") or ""))


def settle(record: Record, state: State | None = None) -> State:
    """Ask what became of a launch; if it has ended, record that and clear up."""
    target = open_target(record["target"])
    state = state or poll(record, target)
    if state.status not in ("exited", "lost"):
        return state
    # A full disk must not hide how the run ended; a later command records it then.
    with contextlib.suppress(OSError, RetryableError):
        if "ended" not in record:
            record |= {"ended": now(), "exit_code": state.exit_code, "note": state.note}
            save(record)
        if not record.get("cleared") and target.remove(record):
            record["cleared"] = True
            save(record)
    return state


def follow(
    record: Record, show: Say, say: Say, wish: Wish | None = None, grace: float = 60.0
) -> State:
    """Show a launch's output until it ends. A provider that does not answer ends nothing.

    Args:
        wish: when it is asked for, the launch is told to save and end within ``grace`` seconds;
            when it is asked for again, the launch is left alone and its state now is returned.
    """
    target, wish = open_target(record["target"]), wish or Wish()
    reader = threading.Thread(target=_copy, args=(record, show), daemon=True)
    reader.start()
    stopper: threading.Thread | None = None
    silent: float | None = None
    told = away = False
    while (state := poll(record, target)).status in ("running", "unknown"):
        if state.status == "running":
            silent, told, away = None, False, False
        else:
            silent, away = silent or time.monotonic(), True
            if not told and time.monotonic() - silent > PATIENCE:
                told = True
                say(f"The engine does not answer ({state.note}). The run goes on without it.")
        if wish.times > 1:
            return state
        if wish.times and stopper is None:
            say("Asking the run to save. A second Ctrl-C leaves it alone.")
            stopper = threading.Thread(target=_ask, args=(record, grace, say), daemon=True)
            stopper.start()
        wish.pause(POLL)
    reader.join(timeout=10)
    if away and state.exit_code in KILLED and not state.note and "stopping" not in record:
        state = State("lost", state.exit_code, "the engine was stopped, and took it along")
    return settle(record, state)


def _copy(record: Record, show: Say) -> None:
    for line in open_target(record["target"]).output(record, follow=True):
        show(line)


def _ask(record: Record, grace: float, say: Say) -> None:
    """Tell a launch to save and end, for as long as its provider does not hear."""
    record["stopping"] = now()
    if "ended" not in refreshed(record):
        save(record)
    until = time.monotonic() + grace + PATIENCE
    while True:
        try:
            open_target(record["target"]).stop(record, grace)
            return
        except RetryableError as error:
            if time.monotonic() > until:
                say(f"It could not be stopped: {error}")
                return
        time.sleep(POLL)


def attend(
    launch: LaunchSpec,
    record: Record,
    show: Say,
    say: Say,
    *,
    wish: Wish | None = None,
    started: Callable[[Record], None] = lambda _: None,
) -> State:
    """Follow a launch; start it again while that may help and the budget lasts.

    Args:
        started: called with the record of each launch that is attended to.
    """
    wish = wish or Wish()
    losses = 0
    while True:
        started(record)
        state = follow(record, show, say, wish, launch.grace)
        lost = state.status == "lost"
        if not (lost or state.exit_code == RETRY) or wish.times:
            return state
        if lost and launch.losses is not None:
            # Where machines are lent, losing one says nothing against the program.
            losses += 1
            if losses > launch.losses:
                return state
        elif record["attempt"] - losses > launch.retries:
            return state
        wait = BACKOFF * 3 ** max(0, record["attempt"] - losses - 1)
        why = state.note or "it ended with exit code 5"
        say(f"Starting again in {wait:.0f} s, where it stood ({why}).")
        if wish.pause(wait):
            return state
        while True:
            try:
                record = begin(launch, attempt=record["attempt"] + 1)
                break
            except RetryableError as error:
                losses += 1
                if losses > (launch.losses or 0):
                    raise
                record = latest(launch.run)
                say(f"It did not start ({error.what}); trying again in {AGAIN:.0f} s.")
                if wish.pause(AGAIN):
                    return state


def stop(record: Record, grace: float, say: Say = lambda _: None) -> State:
    """Ask a launch to save and leave; returns what became of it."""
    target = open_target(record["target"])
    _ask(record, grace, say)
    until = time.monotonic() + PATIENCE
    while (state := poll(record, target)).status in ("running", "unknown"):
        if time.monotonic() > until:
            break
        time.sleep(POLL)
    return settle(record, state)


def latest(run: Path) -> Record:
    """The newest launch of a run.

    Raises:
        RetryableError: it has none.
    """
    records: Sequence[Record] = launches(run)
    if not records:
        raise RetryableError(
            "this run was not started by the controller",
            where=str(run),
            fix="its events are in events.jsonl",
        )
    return records[-1]
