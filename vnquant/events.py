"""Progress as JSON lines: one event, one line, appended to the run's ``events.jsonl``.

The file is the record; a listener (the terminal's progress bar, plain lines in a log) is only a
view of it. Losing the view never loses the run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Listener = Callable[[Event], None]


class Events:
    """Append events to a file and show them to a listener.

    Args:
        path: the run's ``events.jsonl``; None keeps nothing.
        listener: called with every event, also with ``progress`` ticks, which are not recorded.
    """

    def __init__(self, path: Path | None = None, listener: Listener | None = None) -> None:
        self._path = path
        self._listener = listener

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
        if self._listener is not None:
            self._listener(
                {"event": "progress", "stage": stage, "done": done, "total": total, "note": note}
            )


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
