"""One team's process: ``python -m vnquant.stages.team``, started by `vnquant.stages.teams` only.

Its job is one JSON line on stdin. It gets ready, and begins when a second line comes. Stdin then
stays open, and its end says that the parent is gone.
Events go to the parent as JSON lines on what was stdout; whatever else is printed goes to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from vnquant.accelerators import affinity

TICK = 0.3
"""Seconds between two reports of progress."""


def main() -> int:
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    # Before torch is loaded: its threads inherit the binding.
    affinity.bind(job["options"]["cpus"])

    def tell(event: dict[str, Any]) -> None:
        try:
            out.write(json.dumps(event, default=str) + "\n")
        except OSError:  # the parent is gone: `_parted` sees to it
            return

    from vnquant.errors import VnquantError

    try:
        tell({"event": "team_finished", **_work(job, tell)})
    except VnquantError as error:
        tell({"event": "team_failed", "exit_code": error.exit_code, "why": str(error)})
        return error.exit_code
    return 0


def _work(job: dict[str, Any], tell: Any) -> dict[str, Any]:
    from vnquant.events import Events
    from vnquant.stages.context import Context, Options
    from vnquant.stages.fleet import Fleet
    from vnquant.stages.worker import Worker, open_watch
    from vnquant.training.data import ModelId
    from vnquant.workspace import Workspace

    workspace = Workspace(job["workspace"])
    options = Options(**{**job["options"], "cpus": tuple(job["options"]["cpus"])})
    ctx = Context(workspace, workspace.find(job["run"]), Events(None, tell), options)
    watch = open_watch(ctx, job["limit"])
    ticked = [0.0]

    def advance(steps: int, note: str) -> None:
        if time.monotonic() - ticked[0] > TICK:
            ticked[0] = time.monotonic()
            tell({"event": "team_progress", "steps": steps, "note": note})

    begin = threading.Event()

    def parted() -> None:
        sys.stdin.readline()
        begin.set()
        sys.stdin.read()
        watch.signum = watch.signum or signal.SIGTERM

    threading.Thread(target=parted, daemon=True).start()
    with watch.listening():
        fleet = Fleet(ctx, [ModelId(*m) for m in job["wanted"]], job["stage"])
        worker = Worker(fleet, watch, advance)
        begin.wait()
        began, used = time.perf_counter(), time.process_time()
        units = worker.work()
    watch.memory.sample()
    return {
        "cpus": options.cpus,
        "threads": ctx.profile.threads,
        "units": units,
        "steps": worker.done,
        "seconds": round(time.perf_counter() - began, 3),
        "busy_seconds": round(worker.busy, 3),
        "cpu_seconds": round(time.process_time() - used, 3),
        "peak_rss_bytes": watch.memory.peak_rss,
        "peak_cuda_bytes": watch.memory.peak_cuda,
    }


if __name__ == "__main__":
    sys.exit(main())
