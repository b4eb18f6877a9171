"""What the launching commands do, between parsing and the library."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from vnquant.cli_plan import PLANNED, plan, stages_of
from vnquant.errors import INTERRUPTED, UsageError
from vnquant.host import launch as starting
from vnquant.host import publishing
from vnquant.host.findings import refuse_errors
from vnquant.host.targets import LaunchSpec, Record, State
from vnquant.workspace import Workspace


def train(target: str, launching: dict[str, Any], workspace: str, **given: Any) -> int:
    """Plan on this host, start on the target, attend, and return the run's exit code."""
    if given.pop("validate_only"):
        raise UsageError("needs no other target", where="--validate-only", fix="leave --target out")
    device = given.pop("device")
    if device not in ("auto", {"local": device, "cpu": "cpu", "cuda": "cuda"}[target]):
        raise UsageError(f"contradicts --target {target}", where=f"--device {device}",
                         fix="leave --device out")  # fmt: skip
    prices: Path | None = given.pop("prices")
    job = plan(prices=prices, **{k: given.pop(k) for k in list(given) if k in PLANNED})
    stages = stages_of(optimize_inference=given.pop("optimize_inference"))
    place = Workspace(workspace).create()
    run = place.run(job.spec)
    detach, remote = launching.pop("detach"), launching.pop("remote")
    launch = LaunchSpec(
        target=target,  # type: ignore[arg-type]  # click has checked it
        workspace=place.path,
        run_id=job.spec.run_id,
        stages=tuple(stages),
        prices=prices.resolve() if prices else None,
        words=words(given) + (("--device", device) if target == "local" else ()),
        **launching,
    )
    findings = starting.preflight(launch)
    if remote:
        findings += publishing.preflight(place.path, remote)
    refuse_errors(findings)
    for finding in findings:
        if finding.level == "warning":
            say(f"Note: {finding}")
    run.prepare()
    hand_over(place.path, run.path)
    record = starting.begin(launch)
    say(f"Run {launch.run_id} on {target} (launch {record['launch']}).")
    publisher = publishing.start(place.path, launch.run_id, remote) if remote else None
    if detach:
        say(f"Watch it with: vnquant logs {launch.run_id} -f --workspace {place.path}")
        return 0
    code = attend(launch, record)
    if publisher is not None:
        say(publishing.conclude(publisher, place.path, launch.run_id))
    return code


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


class _Terminated(BaseException):
    """SIGTERM, as something that can be caught like Ctrl-C."""


def attend(launch: LaunchSpec, record: Record) -> int:
    """Follow a launch; on Ctrl-C or SIGTERM ask it to save, and wait for that."""

    def terminated(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        state = starting.attend(launch, record, show, say)
    except (KeyboardInterrupt, _Terminated):
        say("Asking the run to save. A second Ctrl-C leaves it alone.")
        try:
            state = starting.stop(starting.latest(launch.run), launch.grace)
        except (KeyboardInterrupt, _Terminated):
            say(f"Left it running. Look with: vnquant status --workspace {launch.workspace}")
            return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return ended(state)


def ended(state: State) -> int:
    """Say how it ended, where the output does not; returns the exit code."""
    if state.note:
        say(f"The run ended: {state.note}.")
    return 1 if state.exit_code is None else state.exit_code


def find(workspace: str, run: str) -> Path:
    return Workspace(workspace).find(run).path


def logs(workspace: str, run: str, follow: bool) -> int:
    """Show a launch's output; with ``follow`` end as the run ends."""
    record = starting.latest(find(workspace, run))
    if follow and "ended" not in record:
        return ended(starting.follow(record, show, say))
    from vnquant.host.targets import open_target

    for line in open_target(record["target"]).output(record, follow=False):
        show(line)
    return 0


def stop(workspace: str, run: str, grace: float) -> None:
    """Stop every launch of a run that has not ended."""
    path = find(workspace, run)
    records: Sequence[Record] = [r for r in starting.launches(path) if "ended" not in r]
    for record in records:
        state = starting.stop(record, grace)
        say(f"Launch {record['launch']} ended with exit code {state.exit_code}.")
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
