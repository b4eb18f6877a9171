"""Show a run's events: a progress bar with ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import click

from vnquant.events import Event

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_SECONDS = 10.0


class View(Protocol):
    """A listener that can be opened and closed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def __call__(self, event: Event) -> None: ...


def describe(event: Event) -> str | None:
    """One line for an event worth a line, else None."""
    kind = event["event"]

    def f(name: str) -> Any:
        return event.get(name)

    lines: dict[str, Any] = {
        "stage_started": lambda: f"{f('stage')}: started (run {f('run')})",
        "stage_skipped": lambda: f"{f('stage')}: {f('reason')}",
        "stage_finished": lambda: f"{f('stage')}: done in {f('seconds'):.1f} s",
        "training": lambda: (
            f"train: {f('models')} {'pooled ' if f('pooled') else ''}models of {f('symbols')} "
            f"symbols on {f('name')} "
            f"({f('dtype')}, {f('threads')} threads{', compiled' if f('compile') else ''})"
        ),
        "plain_kernels": lambda: f"train: plain kernels, {f('reason')}",
        "layout_hangs": lambda: (
            f"train: the trial of {f('layout')} was not done in {f('seconds'):.0f} s "
            "and is left out"
        ),
        "stacks": lambda: f"train: {f('count')} stacks, {_widths(event)} models wide",
        "resumed": lambda: f"train: resumed {f('models')} models in epoch {f('epoch') + 1}",
        "checkpoint": lambda: f"train: checkpoint {f('file')} saved in epoch {f('epoch') + 1}",
        "diverged": lambda: (
            f"train: {f('symbol')} member {f('member')} diverged in epoch {f('epoch')}; frozen"
        ),
        "memory_warning": lambda: f"memory: {f('used'):.0%} of {f('limit') / 2**30:.1f} GiB in use",
        "narrowed": lambda: f"memory: stacks narrowed to {f('width')} models",
        "team_lost": lambda: f"train: team {f('team')} was lost ({f('why')}); the others go on",
        "quality": lambda: (
            f"ingest: {f('kept'):,} of {f('bars'):,} bars kept; "
            + (", ".join(f"{k} {v:,}" for k, v in f("counts").items()) or "no defect found")
        ),
        "price_note": lambda: f"prices: {f('text')}",
        "price_symbol": lambda: _price_line(event),
        "deployed": lambda: f"deploy: set {f('set')} is current",
        "not_deployed": lambda: f"deploy: refused, {f('reason')}",
    }
    return lines[kind]() if kind in lines else None


def _widths(event: Event) -> str:
    return "/".join(str(w) for w in event["widths"])


def _price_line(event: Event) -> str | None:
    """Only what is out of the ordinary: hundreds of symbols simply arrive."""
    if event["outcome"] == "failed":
        return f"prices: {event['symbol']} failed"
    kept = f"; the old file is {event['kept']}" if event["kept"] else ""
    return f"prices: {event['symbol']} {event['note']}{kept}" if event["note"] else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Lines:
    """Plain lines on stderr; a progress line at most every ten seconds."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, float]] = {}
        self._shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, event: Event) -> None:
        if event["event"] == "progress":
            self._progress(event)
        elif (line := describe(event)) is not None:
            click.echo(line, err=True)

    def _progress(self, event: Event) -> None:
        now, stage = time.monotonic(), event["stage"]
        # Work restored from a checkpoint took no time here, so the rate starts from it.
        began, first = self._began.setdefault(stage, (now, event["done"]))
        if now - max(self._shown, began) < LINE_SECONDS or not event["total"]:
            return
        self._shown = now
        rate = (event["done"] - first) / max(now - began, 1e-9)
        left = (event["total"] - event["done"]) / max(rate, 1e-9)
        eta = f", {_clock(left)} left" if rate > 0 else ""
        note = f", {event['note']}" if event["note"] else ""
        share = event["done"] / event["total"]
        click.echo(f"{stage}: {share:.0%}{note}{eta}", err=True)


class Bars:
    """A rich progress bar per stage; other events print above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("[bold]{task.description:>9}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        if event["event"] == "progress":
            stage = event["stage"]
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=event["total"], note="")
            self._progress.update(
                self._tasks[stage],
                completed=event["done"],
                total=event["total"],
                note=event["note"],
            )
        elif (line := describe(event)) is not None:
            self._progress.console.print(line, highlight=False, markup=False)
            if event["event"] == "stage_finished" and event["stage"] in self._tasks:
                self._progress.remove_task(self._tasks.pop(event["stage"]))


def open_view(*, quiet: bool = False) -> View:
    """The view that suits stderr."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


class Silent(Lines):
    """Shows nothing; the events file still records everything."""

    def __call__(self, event: Event) -> None:
        return None
