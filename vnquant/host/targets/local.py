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
from vnquant.host.cpus import parse
from vnquant.host.findings import Finding
from vnquant.host.targets import LaunchSpec, Record, State
from vnquant.workspace import read_json

POLL = 0.2


class LocalTarget:
    """A supervised child process in a session of its own."""

    def preflight(self, launch: LaunchSpec) -> list[Finding]:
        if launch.image is not None:
            return [Finding("error", "an image was named", "leave --image out or use --target cpu")]
        return []

    def start(self, launch: LaunchSpec, record: Record) -> Record:
        folder = launch.run / "launches"
        log, result = folder / f"{record['launch']}.log", folder / f"{record['launch']}.exit.json"
        command = [
            *(sys.executable, "-m", "vnquant", "run", *launch.stages),
            *("--spec", str(launch.run / "spec.json"), "--workspace", str(launch.workspace)),
            *(("--prices", str(launch.prices)) if launch.prices else ()),
            *launch.words,
        ]
        if launch.memory is not None and "--memory-limit" not in launch.words:
            command += ["--memory-limit", str(launch.memory)]
        supervised = [sys.executable, "-m", "vnquant.host.supervise", str(result), "--", *command]
        cpus = parse(launch.cpus) if launch.cpus else None
        pid = process.start(supervised, log=log, cpus=cpus)
        return {
            "pid": pid,
            "pid_started": process.started_at(pid),
            "log": str(log),
            "result": str(result),
        }

    def poll(self, record: Record) -> State:
        if "pid" not in record:
            return State("lost", note="it was never started")
        # Asked first: the file is written before the process ends.
        running = _runs(record)
        result = read_json(Path(record["result"]))
        if result is not None:
            return State("exited", int(result["exit_code"]))
        if running:
            return State("running")
        return State("lost", note="its process ended without leaving an exit code")

    def output(self, record: Record, *, follow: bool) -> Iterator[str]:
        with Path(record["log"]).open(encoding="utf-8", errors="replace") as lines:
            while True:
                ended = not follow or self.poll(record).status != "running"
                yield from (line.rstrip("\n") for line in lines)
                if ended:
                    return
                time.sleep(POLL)

    def stop(self, record: Record, grace: float) -> None:
        until = time.monotonic() + grace
        if _runs(record):
            os.kill(record["pid"], signal.SIGTERM)
        while _runs(record):
            if time.monotonic() > until:
                # The whole session: the supervisor and what it runs.
                os.killpg(record["pid"], signal.SIGKILL)
                return
            time.sleep(POLL)

    def remove(self, record: Record) -> None:
        """Nothing: its log and exit code belong to the run."""


def _runs(record: Record) -> bool:
    started = record.get("pid_started")
    # Collect it if it is our own child, or it would look alive as a zombie.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(record["pid"], os.WNOHANG)
    return started is not None and process.alive(record["pid"], started)
