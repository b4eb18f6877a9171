"""This machine itself: a detached process of the same program."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vnquant.host import process
from vnquant.host.cpus import parse, usable
from vnquant.host.findings import Finding
from vnquant.host.records import age, folder
from vnquant.host.targets import STARTING, LaunchSpec, Record, State
from vnquant.workspace import read_json

POLL = 0.2


class LocalTarget:
    """A supervised child process in a session of its own."""

    def preflight(self, launch: LaunchSpec) -> list[Finding]:
        if launch.image is not None:
            return [Finding("error", "an image was named", "leave --image out or use --target cpu")]
        return []

    def start(self, launch: LaunchSpec, record: Record) -> Record:
        command = [
            *(sys.executable, "-m", "vnquant", "run", *launch.stages),
            *("--spec", str(launch.run / "spec.json"), "--workspace", str(launch.workspace)),
            *(("--prices", str(launch.prices)) if launch.prices else ()),
            *launch.words,
        ]
        if launch.memory is not None and "--memory-limit" not in launch.words:
            command += ["--memory-limit", str(launch.memory)]
        name = str(folder(record) / record["launch"])
        supervised = [sys.executable, "-m", "vnquant.host.supervise", name, "--", *command]
        cpus = usable(parse(launch.cpuset)) if launch.cpuset else None
        pid = process.start(supervised, log=_file(record, "log"), cpus=cpus)
        return {"pid": pid, "pid_started": process.started_at(pid)}

    def poll(self, record: Record) -> State:
        # Asked first: the file is written before the process ends.
        running = _running(record)
        result = read_json(_file(record, "exit.json"))
        if result is not None:
            return State("exited", int(result["exit_code"]))
        if running:
            return State("running")
        if not _processes(record):
            if age(record) < STARTING:
                return State("unknown", note="it is being started")
            return State("lost", note="it was never started")
        return State("lost", note="its process ended without leaving an exit code")

    def output(self, record: Record, *, follow: bool) -> Iterator[str]:
        log = _file(record, "log")
        while not log.exists():
            if not follow or self.poll(record).status in ("exited", "lost"):
                return
            time.sleep(POLL)
        with log.open(encoding="utf-8", errors="replace") as lines:
            rest = ""
            while True:
                ended = not follow or self.poll(record).status in ("exited", "lost")
                for line in lines:
                    rest += line
                    if rest.endswith("\n"):
                        yield rest.rstrip("\n")
                        rest = ""
                if ended:
                    if rest:
                        yield rest
                    return
                time.sleep(POLL)

    def stop(self, record: Record, grace: float) -> None:
        until = time.monotonic() + grace
        # The supervisor hands it on; without one the run itself is told.
        if running := _running(record):
            _signal(running[0], signal.SIGTERM)
        while running := _running(record):
            if time.monotonic() > until:
                for pid in running:
                    _signal(pid, signal.SIGKILL)
                return
            time.sleep(POLL)

    def remove(self, record: Record) -> bool:
        """Nothing to do: its log and exit code belong to the run."""
        return True


def _file(record: Record, kind: str) -> Path:
    return folder(record) / f"{record['launch']}.{kind}"


def _processes(record: Record) -> list[tuple[int, float | None]]:
    """The supervisor and the run, as (process id, start time); empty if nothing has started."""
    kept = read_json(_file(record, "process.json"))
    if isinstance(kept, dict):
        return [(pid, started) for pid, started in kept["processes"]]
    return [(record["pid"], record["pid_started"])] if "pid" in record else []


def _running(record: Record) -> list[int]:
    """Those of its processes that are alive, the supervisor first."""
    return [pid for pid, started in _processes(record) if process.runs(pid, started)]


def _signal(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
