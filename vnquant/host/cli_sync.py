"""``vnquant publish`` and ``vnquant sync``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnquant import cli_options as opt

if TYPE_CHECKING:
    from vnquant.host.publisher import Publisher

remote = click.option(
    "--remote",
    envvar="RCLONE_REMOTE",
    help="REMOTE:PATH of rclone, or a folder. Default: the variable RCLONE_REMOTE.",
)
one_run = click.option("--run", "run", help="Only this run.")


def _publisher(workspace: str, address: str | None, run: str | None) -> Publisher:
    from vnquant.errors import UsageError
    from vnquant.host.publisher import Publisher

    if not address:
        raise UsageError(
            "no remote was given", where="--remote", fix="write REMOTE:PATH, or set RCLONE_REMOTE"
        )
    return Publisher(Path(workspace).expanduser().resolve(), address, run, _say)


@click.command()
@opt.workspace
@remote
@one_run
@click.option("--watch", is_flag=True, help="Go on until the run is over and all is saved.")
@click.option(
    "--idle",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="With --watch: leave when nothing has worked on any run for so long and all is saved.",
)
@click.option("--cpuset", metavar="LIST", help="Logical CPUs to use, as 16-27.")
@click.option("--interval", type=click.FloatRange(0.1), default=5.0, hidden=True)
def publish(
    workspace: str,
    remote: str | None,
    run: str | None,
    watch: bool,
    idle: float | None,
    cpuset: str | None,
    interval: float,
) -> None:
    """Publish finished artefacts, verified, and nothing twice."""
    from vnquant.accelerators import affinity
    from vnquant.errors import TERMINATED
    from vnquant.host.cpus import parse

    if not remote and watch:
        # A compose service has no conditions: without a remote there is nothing to do.
        _say("no remote is set (RCLONE_REMOTE): nothing is published")
        return
    publisher = _publisher(workspace, remote, run)
    if cpuset:
        affinity.bind(affinity.given() & set(parse(cpuset)))
    if not watch:
        with publisher.alone():
            saved = publisher.drain()
        _say(f"saved {len(saved)} files; everything finished is on {publisher.store.address}")
        return
    stopped = []

    def leave(signum: int, _frame: Any) -> None:
        stopped.append(signum)
        publisher.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, leave)
    # Beside other runs: each has a publisher, and one of them at a time is at work.
    with publisher.alone(patient=run is not None):
        publisher.watch(interval, idle)
    if stopped:
        sys.exit(TERMINATED)


@click.group()
def sync() -> None:
    """Keep a workspace and a remote in step."""


@sync.command()
@opt.workspace
@remote
@one_run
def push(workspace: str, remote: str | None, run: str | None) -> None:
    """Publish everything finished, once."""
    publisher = _publisher(workspace, remote, run)
    with publisher.alone():
        saved = publisher.drain()
    click.echo(f"{len(saved)} files saved to {publisher.store.address}.")


@sync.command()
@opt.workspace
@remote
@one_run
def pull(workspace: str, remote: str | None, run: str | None) -> None:
    """Bring back what the remote has and this workspace has not."""
    from vnquant.host import sync as syncing

    Path(workspace).expanduser().mkdir(parents=True, exist_ok=True)
    publisher = _publisher(workspace, remote, None)
    with publisher.alone():
        fetched, beside = syncing.pull(publisher, f"runs/{run}" if run else "")
    click.echo(f"{len(fetched)} files fetched and verified.")
    for path in beside:
        click.echo(f"Differs here; the remote's copy is kept beside it: {path}")


@sync.command()
@opt.workspace
@remote
@one_run
def check(workspace: str, remote: str | None, run: str | None) -> None:
    """Download and compare every published byte; exit code 3 if anything differs."""
    from vnquant.errors import DataError
    from vnquant.host import sync as syncing

    publisher = _publisher(workspace, remote, None)
    with publisher.alone():
        found = syncing.verify(publisher, f"runs/{run}" if run else "")
    click.echo(f"{len(found.same)} files are the same here and there.")
    click.echo(f"{len(found.only_there)} files are only there.")
    problems = [f"{r.name} differs" for r in found.changed]
    problems += [f"{r.name} was changed there" for r in found.behind]
    problems += [f"{name} is not published" for name in found.unpublished]
    problems += [f"{name} is damaged there" for name in found.damaged]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(
            "; ".join(problems[:5]) + more,
            where=publisher.store.address,
            fix="`vnquant sync pull` brings what was changed there, `push` saves what is not",
        )


def _say(text: str) -> None:
    click.echo(f"publish: {text}", err=True)
