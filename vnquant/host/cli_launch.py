"""``vnquant train --target``, ``status``, ``logs``, ``stop``, ``doctor``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from vnquant import cli_options as opt
from vnquant.cli import train as train_here
from vnquant.host.cli_cycle import CYCLE

TARGETS = ("local", "cpu", "cuda", "colab")


def _words(_ctx: object, _option: object, value: str) -> tuple[str, ...]:
    """A,B,C as upper-case words."""
    return tuple(w.strip().upper() for w in value.split(",") if w.strip())


LAUNCHING = (
    click.Option(
        ["--target"],
        type=click.Choice(TARGETS),
        help="Where to run: a process of its own, a container, or Colab. Default: this process.",
    ),
    click.Option(["--image"], help="Container image instead of the target's own."),
    click.Option(["--cpuset"], metavar="LIST", help="Logical CPUs it may use, as 0-7,16."),
    click.Option(["--memory"], type=opt.Bytes(), help="Memory that it may use, e.g. 8GB."),
    click.Option(["--grace"], type=click.FloatRange(1), default=60.0, show_default=True,
                 help="Seconds to save in, when stopped."),
    click.Option(["--retries"], type=click.IntRange(0), default=2, show_default=True,
                 help="Starts after a loss that may pass."),
    click.Option(["--gpu", "gpus"], default="", metavar="LIST", callback=_words,
                 help="On Colab: accelerators in the order of preference, as A100,L4,T4."),
    click.Option(["--lost-retries", "losses"], type=click.IntRange(0), default=10,
                 show_default=True, help="On Colab: starts after a machine was taken away."),
    click.Option(["--max-hours"], type=click.FloatRange(0, min_open=True),
                 help="On Colab: stop when the run has held machines for so long."),
    click.Option(["--max-units"], type=click.FloatRange(0, min_open=True),
                 help="On Colab: stop when so many compute units are gone."),
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
    from vnquant.host.colab.orphans import orphans

    for orphan in orphans(folder):
        click.echo(f"Costs money for nothing: {orphan}. Release it: vnquant colab cleanup")


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


@click.group()
def colab() -> None:
    """Machines lent by Google Colab."""


@colab.command()
@click.argument("folder", type=click.Path(path_type=Path))
def wheel(folder: Path) -> None:
    """Write the wheel of this code and its locked requirements into FOLDER, for the notebook.

    Put them on Drive as vnquant/wheels.
    """
    from vnquant.host.colab.bundle import write_wheel

    click.echo(f"{write_wheel(folder)} and runtime.txt are in {folder}.")


@colab.command()
@opt.workspace
def cleanup(workspace: str) -> int:
    """Give back every machine that no launch of this workspace needs any more.

    Exit code 5 if one of them may still be held.
    """
    from vnquant.errors import OK, RETRY
    from vnquant.host.colab.orphans import orphans

    left = 0
    for orphan in orphans(Path(workspace).expanduser().resolve()):
        gone = orphan.release()
        left += not gone
        click.echo(f"{orphan}: {'released' if gone else 'may still be held; try again'}")
    return RETRY if left else OK


@colab.command("local-runtime")
@click.option(
    "--drive",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("vnquant-drive"),
    show_default=True,
    help="Folder in place of Drive; prices are in data of it.",
)
@click.option(
    "--image",
    default="vnquant:cuda-jupyter",
    show_default=True,
    help="See vnquant image build; vnquant:cpu-jupyter needs no GPU.",
)
@click.option(
    "--port",
    type=click.IntRange(1024, 65535),
    default=9000,
    show_default=True,
    help="On 127.0.0.1, and nowhere else.",
)
@click.option("--stop", is_flag=True, help="End the one at this port.")
def local_runtime(drive: Path, image: str, port: int, stop: bool) -> None:
    """Let Colab's page compute on this machine; prints the address to connect to.

    The address holds a token: whoever has it may do on this machine what the container may.
    """
    from vnquant.host.colab import local_runtime as local

    if stop:
        click.echo("Ended." if local.stop(port) else f"None was at work at port {port}.")
        return
    address = local.start(image, drive, port)
    click.echo("In Colab: Connect > Connect to a local runtime, and this address:", err=True)
    click.echo(address)


def show(findings: Iterable[Any]) -> None:
    """One line for each finding."""
    for finding in findings:
        click.echo(f"{finding.level:<8} {finding}")
