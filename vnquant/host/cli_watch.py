"""``vnquant status --watch``: every run and the newest cycle as a table that stays up to date."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vnquant.host import status
from vnquant.host.cycle import PHASES
from vnquant.host.jobs import Job, Jobs

SECONDS = 2.0
COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "lost": "red"}
RIGHT = ("done", "left", "epoch", "symbols", "exit")


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The runs that `vnquant.host.status.runs` has found."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for head in status.HEAD:
        found.add_column(head, justify="right" if head in RIGHT else "left", no_wrap=True)
    for row in rows:
        cells = status.cells(row)
        # As Text: what stands in a record is no markup.
        state = Text(cells[1], style=COLOURS.get(cells[1], ""))
        found.add_row(Text(cells[0]), state, *(Text(c) for c in cells[2:]))
    return found


def line(job: Job) -> Text:
    """A cycle in one line."""
    took = dt.timedelta(seconds=round(job.seconds))
    where = f"phase {job.phase} of {len(PHASES)}, {PHASES[job.phase - 1]}"
    return Text(f"{job.mode} cycle {job.job}: {job.state}, {where}, run {job.run}, {took}")


def view(workspace: Path) -> RenderableType:
    """What is to be seen now."""
    rows = status.runs(workspace)
    parts: list[RenderableType] = [table(rows) if rows else Text("No runs yet.")]
    parts += [line(job) for job in Jobs(workspace).all()[:1]]
    if said := status.publisher(workspace):
        parts.append(Text(said))
    return Group(*parts, Text(f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC", style="dim"))


def watch(
    workspace: Path,
    console: Console | None = None,
    seconds: float = SECONDS,
    times: int | None = None,
) -> None:
    """Show it anew every few seconds, until Ctrl-C or so many times."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(view(workspace), console=console, auto_refresh=False) as live,
    ):
        while times is None or times > 1:
            time.sleep(seconds)
            live.update(view(workspace), refresh=True)
            times = None if times is None else times - 1
