"""``vnquant schedule``: the weekly timer."""

from __future__ import annotations

from pathlib import Path

import click

from vnquant import cli_weekly
from vnquant.argv import normalise

system = click.option("--system", is_flag=True, help="Of the whole machine, not of this user.")


@click.group()
def schedule() -> None:
    """Run the cycle every week by a systemd timer."""


@schedule.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@cli_weekly.at
@cli_weekly.zone
@system
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="Write the units to this folder and switch nothing on.",
)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def install(at: str, zone: str, system: bool, into: Path | None, words: tuple[str, ...]) -> None:
    """Install a timer for `vnquant train WORDS`, which must have a --mode.

    Put -- before the words: vnquant schedule install -- --mode hybrid --symbols FPT VCB
    """
    from vnquant.errors import UsageError
    from vnquant.host import schedule as timer
    from vnquant.host.cli_launch import train
    from vnquant.weekly import Slot

    # A flag that train does not know is found now, not on Sunday.
    given = train.make_context("vnquant train", normalise(words)).params
    if given["mode"] is None:
        raise UsageError("there is no --mode", where="schedule", fix="add --mode local or hybrid")
    slot = Slot.parse(at, zone)
    where = timer.install(("train", *words), slot, system=system, into=into)
    click.echo(f"Wrote {where / timer.TIMER} and {timer.SERVICE}.")
    if into is None:
        _next(at, zone)


@schedule.command()
@system
def remove(system: bool) -> None:
    """Switch the timer off and delete its units."""
    from vnquant.host import schedule as timer

    gone = timer.remove(system=system)
    click.echo("\n".join(f"Deleted {path}." for path in gone) or "There is no timer.")


@schedule.command()
@system
def show(system: bool) -> None:
    """Show the timer's units, and when it runs next."""
    from vnquant.errors import RetryableError
    from vnquant.host import schedule as timer

    folder = timer.folder(system=system)
    there = [folder / n for n in (timer.TIMER, timer.SERVICE) if (folder / n).exists()]
    if not there:
        click.echo("There is no timer.")
        return
    for path in there:
        click.echo(f"# {path}\n{path.read_text(encoding='utf-8')}")
    try:
        click.echo(timer.systemctl("list-timers", "--all", timer.TIMER, system=system), nl=False)
    except RetryableError as error:
        click.echo(f"Whether it is switched on is not known: {error}")


def _next(at: str, zone: str) -> None:
    import datetime as dt

    from vnquant.weekly import Slot

    slot = Slot.parse(at, zone)
    due = slot.after(dt.datetime.now(dt.UTC)).astimezone(slot.zone)
    click.echo(f"Next run: {due:%a %Y-%m-%d %H:%M %Z}.")
