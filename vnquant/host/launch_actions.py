"""What the launching commands do, between parsing and the library."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vnquant.cli_plan import PLANNED, plan, stages_of
from vnquant.errors import INTERRUPTED, OK, PARTIAL, RETRY, RetryableError, UsageError, VnquantError
from vnquant.host import launch as starting
from vnquant.host import publishing
from vnquant.host.discovery import SHARED
from vnquant.host.findings import refuse_errors
from vnquant.host.records import launches
from vnquant.host.targets import LaunchSpec, Record, State, open_target
from vnquant.workspace import Workspace


def train(target: str, launching: dict[str, Any], workspace: str, **given: Any) -> int:
    """Plan on this host, start on the target, attend, and return the run's exit code."""
    if given.pop("validate_only"):
        raise UsageError("needs no other target", where="--validate-only", fix="leave --target out")
    device = given.pop("device")
    if device not in (
        "auto",
        {"local": device, "cpu": "cpu", "cuda": "cuda", "colab": "auto"}[target],
    ):
        raise UsageError(f"contradicts --target {target}", where=f"--device {device}",
                         fix="leave --device out")  # fmt: skip
    detach, remote = launching.pop("detach"), launching.pop("remote")
    place = Workspace(workspace).create()
    if remote:
        refuse_errors(publishing.preflight(place.path, remote))
        # Prices and specs may be among what is brought; the run has no name before them.
        bring(place.path, remote, SHARED)
    prices: Path | None = given.pop("prices")
    job = plan(prices=prices, **{k: given.pop(k) for k in list(given) if k in PLANNED})
    stages = stages_of(optimize_inference=given.pop("optimize_inference"))
    # The registry is here, so a lent machine only trains and judges.
    later = stages[stages.index("deploy") :] if target == "colab" else []
    if target != "colab":
        launching["losses"] = None
    run = place.run(job.spec)
    launch = LaunchSpec(
        target=target,  # type: ignore[arg-type]  # click has checked it
        workspace=place.path,
        run_id=job.spec.run_id,
        stages=tuple(s for s in stages if s not in later),
        prices=prices.resolve() if prices else None,
        words=words(given) + (("--device", device) if target == "local" else ()),
        **launching,
    )
    findings = starting.preflight(launch)
    refuse_errors(findings)
    for finding in findings:
        if finding.level == "warning":
            say(f"Note: {finding}")
    if remote:
        bring(place.path, remote, (f"runs/{launch.run_id}/",))
    run.prepare()
    hand_over(place.path, run.path)
    beside = publishing.Beside(place.path, launch.run_id, remote) if remote else None

    def started(record: Record) -> None:
        say(f"Run {launch.run_id} on {target} (launch {record['launch']}).")
        if beside is not None:
            beside.start()

    if detach:
        started(starting.begin(launch))
        say(f"Watch it with: vnquant logs {launch.run_id} -f --workspace {place.path}")
        return 0
    code = attend(launch, started)
    if later and code in (OK, PARTIAL):
        here = {"target": "local", "stages": tuple(later), "gpus": (), "losses": None}
        code = attend(launch.model_copy(update=here)) or code
    if beside is not None:
        try:
            say(beside.conclude())
        except (VnquantError, KeyboardInterrupt) as error:
            say(f"What is saved is not known ({error or 'stopped'}). {beside.advice}")
    return code


def bring(workspace: Path, remote: str, names: tuple[str, ...]) -> None:
    """Fetch what the remote has below these names and this workspace lacks, and say so."""
    for line in publishing.bring(workspace, remote, names):
        say(line)


def hand_over(workspace: Path, run: Path) -> None:
    """Give what root has made here to the workspace's owner, who is the container's user."""
    owner = workspace.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (run.parent, run, *run.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def words(given: dict[str, Any]) -> tuple[str, ...]:
    """The execution options as words for ``vnquant run`` somewhere else."""
    out: list[str] = []
    for name, value in given.items():
        flag = "--" + name.replace("_", "-")
        if name == "compiled":
            out += [] if value is None else ["--compile" if value else "--no-compile"]
        elif value is True:
            out.append(flag)
        elif value is not None and value is not False:
            out += [flag, str(value)]
    return tuple(out)


def attend(launch: LaunchSpec, started: Callable[[Record], None] = lambda _: None) -> int:
    """Start and follow a launch; on Ctrl-C or SIGTERM it is asked to save, and waited for."""
    wish = starting.Wish()
    # Counted, not raised: a signal must not fall between the start and the note of it.
    before = {s: signal.signal(s, wish.ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        record = starting.begin(launch)
        state = starting.attend(launch, record, show, say, wish=wish, started=started)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if state.status in ("running", "unknown"):
        say(f"Left it running. Look with: vnquant status --workspace {launch.workspace}")
        return INTERRUPTED
    return ended(state)


def ended(state: State) -> int:
    """Say how it ended, where the output does not; returns the exit code."""
    if state.note:
        say(f"The run ended: {state.note}.")
    return RETRY if state.exit_code is None else state.exit_code


def find(workspace: str, run: str) -> Path:
    return Workspace(workspace).find(run).path


def logs(workspace: str, run: str, follow: bool) -> int:
    """Show a launch's output; with ``follow`` end as the run ends."""
    record = starting.latest(find(workspace, run))
    if follow and "ended" not in record:
        return ended(starting.follow(record, show, say))
    for line in open_target(record["target"]).output(record, follow=False):
        show(line)
    return 0


def stop(workspace: str, run: str, grace: float) -> None:
    """Stop every launch of a run that has not ended.

    Raises:
        RetryableError: one of them goes on, as far as can be known.
    """
    path = find(workspace, run)
    records = [r for r in launches(path) if "ended" not in r]
    for record in records:
        state = starting.stop(record, grace, say)
        if state.status in ("running", "unknown"):
            raise RetryableError(
                f"has not ended ({state.note or state.status})",
                where=f"launch {record['launch']}",
                fix="run the same command again",
            )
        code = "no exit code" if state.exit_code is None else f"exit code {state.exit_code}"
        say(f"Launch {record['launch']} ended with {code}.")
    if not records:
        say("Nothing of this run is at work.")


def show(line: str) -> None:
    """A line of the run's own output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A line of the controller's."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
