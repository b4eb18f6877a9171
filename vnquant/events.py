"""Progress as JSON lines: one event, one line, appended to the run's ``events.jsonl``.

The file is the record; a listener (the terminal's progress bar, plain lines in a log) is only a
view of it. Losing the view never loses the run. Ticks of progress are not part of the record: the
last one is kept beside it, in ``progress.json``, for somebody who looks from outside.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Listener = Callable[[Event], None]
TICK = 1.0
"""Seconds between two writes of ``progress.json``."""


class Events:
    """Append events to a file and show them to a listener.

    Args:
        path: the run's ``events.jsonl``; None keeps nothing.
        listener: called with every event, also with ``progress`` ticks, which are not recorded.
    """

    def __init__(self, path: Path | None = None, listener: Listener | None = None) -> None:
        self._path = path
        self._listener = listener
        self._ticked = -TICK
        self._first: dict[str, tuple[float, float]] = {}

    def emit(self, kind: str, **fields: Any) -> None:
        """Record one event. Times are UTC, ISO 8601."""
        event = {"time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), "event": kind}
        event.update(fields)
        if self._path is not None:
            # A full disk must not end a run that could still finish its checkpoint.
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(event, default=str) + "\n")
        if self._listener is not None:
            self._listener(event)

    def progress(self, stage: str, done: float, total: float, note: str = "") -> None:
        """A tick for the progress bar; shown, not recorded."""
        self._keep(stage, done, total, note)
        if self._listener is not None:
            self._listener(
                {"event": "progress", "stage": stage, "done": done, "total": total, "note": note}
            )

    def _keep(self, stage: str, done: float, total: float, note: str) -> None:
        now = time.time()
        # Work restored from a checkpoint took no time here, so the rate counts from it.
        began, first = self._first.setdefault(stage, (now, done))
        if self._path is None or now - self._ticked < TICK:
            return
        self._ticked = now
        rate = (done - first) / (now - began) if now > began else 0.0
        tick = {
            "stage": stage,
            "done": done,
            "total": total,
            "note": note,
            "time": now,
            "seconds_left": (total - done) / rate if rate > 0 else None,
        }
        target = self._path.with_name("progress.json")
        aside = target.with_name(f".{target.name}.part")
        with contextlib.suppress(OSError):
            aside.write_text(json.dumps(tick) + "\n", encoding="utf-8")
            os.replace(aside, target)


def read_events(path: Path) -> list[Event]:
    """All whole events in a file; a line cut short by a kill is skipped."""
    events: list[Event] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    events.append(value)
    return events
