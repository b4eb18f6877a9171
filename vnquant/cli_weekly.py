"""``vnquant weekly``: a command every week, where there is no systemd."""

from __future__ import annotations

from pathlib import Path

import click

from vnquant import cli_options as opt

at = click.option("--at", default="Sun 02:00", show_default=True, help="Day and time of day.")
zone = click.option(
    "--zone", default="Asia/Ho_Chi_Minh", show_default=True, help="Time zone of --at."
)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@at
@zone
@opt.workspace
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def weekly(at: str, zone: str, workspace: str, words: tuple[str, ...]) -> None:
    """Wait, and run `vnquant WORDS` every week, until stopped.

    A run that was missed while this was off is made up for at the start. It ends with exit code 5
    if another one waits in the same workspace.
    """
    from vnquant.weekly import Slot, Wall, keep

    slot = Slot.parse(at, zone)
    folder = Path(workspace).expanduser().resolve()
    wall = Wall()
    keep(slot, folder, lambda: wall.run(words), wall, click.echo)
