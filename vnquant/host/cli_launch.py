"""``vnquant train --target``, ``status``, ``logs``, ``stop``, ``doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from vnquant import cli_options as opt
from vnquant.cli import train as train_here
from vnquant.host.cli_cycle import CYCLE

TARGETS = ("local", "cpu", "cuda")

LAUNCHING = (
    click.Option(
        ["--target"],
        type=click.Choice(TARGETS),
        help="Where to run: a process of its own, or a container. Default: this process.",
    ),
    click.Option(["--image"], help="Container image instead of the target's own."),
    click.Option(["--cpuset"], metavar="LIST", help="Logical CPUs it may use, as 0-7,16."),
    click.Option(["--memory"], type=opt.Bytes(), help="Memory that it may use, e.g. 8GB."),
    click.Option(["--grace"], type=click.FloatRange(1), default=60.0, show_default=True,
                 help="Seconds to save in, when stopped."),
    click.Option(["--retries"], type=click.IntRange(0), default=2, show_default=True,
                 help="Starts after a loss that may pass."),
    click.Option(
        ["--remote"],
        envvar="RCLONE_REMOTE",
        help="Publish to REMOTE:PATH of rclone, or a folder, as the run goes on.",
    ),
    click.Option(["--detach"], is_flag=True, help="Start it and return at once."),
)  # fmt: skip


def _train(target: str | None, **given: Any) -> object:
    launching = {o.name: given.pop(str(o.name)) for o in LAUNCHING[1:]}
    cycle = {o.name: given.pop(str(o.name)) for o in CYCLE}
    if cycle["mode"] is not None:
        from vnquant.host import cycle_actions

        return cycle_actions.train(cycle, target, launching, **given)
    if alone := [o.opts[0] for o in CYCLE if o.name != "notify" and cycle[o.name] not in (None, 1)]:
        raise click.UsageError(f"{', '.join(alone)}: only with --mode")
    if target is None:
        assert train_here.callback is not None
        return train_here.callback(**given)
    from vnquant.host import launch_actions

    return launch_actions.train(target, launching, **given)


train = click.Command(
    name="train",
    help=train_here.help,
    params=[*train_here.params, *LAUNCHING, *CYCLE],
    callback=_train,
)


@click.command()
@opt.workspace
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Go on showing it until Ctrl-C.")
def status(workspace: str, as_json: bool, watch: bool) -> None:
    """Show every run of the workspace, wherever it executes."""
    import json

    from vnquant.host import status as st

    folder = Path(workspace).expanduser().resolve()
    if watch:
        if as_json:
            raise click.UsageError("give one of --watch and --json")
        from vnquant.host.cli_watch import watch as keep_showing

        keep_showing(folder)
        return
    rows = st.runs(folder)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(st.to_text(rows) if rows else "No runs yet.\n", nl=False)
    if line := st.publisher(folder):
        click.echo(line)


@click.command()
@opt.workspace
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
def logs(workspace: str, run: str, follow: bool) -> object:
    """Show the output of RUN's latest launch."""
    from vnquant.host import launch_actions

    return launch_actions.logs(workspace, run, follow)


@click.command()
@opt.workspace
@click.argument("run")
@click.option(
    "--grace",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="Seconds to save in, before it is killed.",
)
def stop(workspace: str, run: str, grace: float) -> None:
    """Ask RUN to save a checkpoint and leave."""
    from vnquant.host import launch_actions

    launch_actions.stop(workspace, run, grace)


@click.command()
@opt.workspace
@click.option("--remote", envvar="RCLONE_REMOTE", help="Also look whether this remote answers.")
def doctor(workspace: str, remote: str | None) -> int:
    """Look over this machine: what is missing, for what, and what to do.

    Exit code 3 if something is in the way of every run.
    """
    from vnquant.errors import DATA, OK
    from vnquant.host.doctor import examine

    findings = examine(Path(workspace).expanduser().resolve(), remote)
    show(findings)
    return OK if all(f.ok for f in findings) else DATA


def show(findings: Iterable[Any]) -> None:
    """One line for each finding."""
    for finding in findings:
        click.echo(f"{finding.level:<8} {finding}")
