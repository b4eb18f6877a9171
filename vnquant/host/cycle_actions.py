"""``vnquant train --mode``, between parsing and the cycle."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from vnquant.cli_plan import PLANNED, plan
from vnquant.errors import UsageError, VnquantError
from vnquant.host import notices, publishing
from vnquant.host.cycle import TARGET, Cycle
from vnquant.host.discovery import SHARED
from vnquant.host.findings import refuse_errors
from vnquant.host.jobs import Job, Jobs
from vnquant.host.launch import Wish
from vnquant.host.launch_actions import bring, hand_over, say, show, words
from vnquant.host.records import launches
from vnquant.host.summary import text, title
from vnquant.host.targets import LaunchSpec, Record
from vnquant.workspace import Workspace


def train(
    cycle: dict[str, Any],
    target: str | None,
    launching: dict[str, Any],
    workspace: str,
    **given: Any,
) -> int:
    """Plan, carry out the cycle alone in its workspace, and return its exit code."""
    mode, urls = cycle["mode"], notices.addresses(cycle["notify"])
    for flag, value in (("--validate-only", given.pop("validate_only")),
                        ("--detach", launching.pop("detach"))):  # fmt: skip
        if value:
            raise UsageError("does not go with a cycle", where=flag, fix="leave --mode out")
    remote = launching.pop("remote")
    place = Workspace(workspace).create()
    jobs = Jobs(place.path)
    with jobs.lock():
        if remote:
            refuse_errors(publishing.preflight(place.path, remote))
            bring(place.path, remote, SHARED)
        prices: Path | None = given.pop("prices")
        try:
            spec = plan(
                prices=prices, **{k: given.pop(k) for k in list(given) if k in PLANNED}
            ).spec
        except VnquantError as error:
            what = f"vnquant: {mode} cycle failed before its first phase"
            for line in notices.send(urls, what, str(error), good=False):
                say(line)
            raise
        device, optimize = given.pop("device"), given.pop("optimize_inference")
        run = place.run(spec)
        # Not into a run whose phase goes on without its controller.
        if remote and all("ended" in record for record in launches(run.path)):
            bring(place.path, remote, (f"runs/{spec.run_id}/",))
        job = jobs.take_up(mode, spec, target or TARGET[mode], cycle["fallback"])
        base = LaunchSpec(
            target="local",
            workspace=place.path,
            run_id=spec.run_id,
            stages=(),
            prices=prices.resolve() if prices else None,
            words=words(given),
            **launching,
        )
        run.prepare()
        hand_over(place.path, run.path)
        beside = publishing.Beside(place.path, spec.run_id, remote) if remote else None

        def started(_: Record) -> None:
            if beside is not None:
                beside.start()

        wish = Wish()
        # Counted, not raised: a signal must not fall between a start and the note of it.
        before = {s: signal.signal(s, wish.ask) for s in (signal.SIGINT, signal.SIGTERM)}
        say(f"Job {job.job}: {mode} cycle of run {job.run}.")
        try:
            work = Cycle(jobs, job, base, show, say, wish, device, optimize, started)
            code = work.carry_out(cycle["from_phase"])
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            if job.ended is not None:
                tell(job, jobs.before(job), urls)
        if beside is not None:
            say(beside.conclude())
    return code


def tell(job: Job, before: Job | None, urls: list[str]) -> None:
    """Say how it ended, here and to the addresses; who stopped it knows already."""
    body = text(job, before)
    say(f"{title(job)}\n{body}".rstrip())
    if job.state != "stopped":
        for line in notices.send(urls, title(job), body, good=job.state == "finished"):
            say(line)
