"""Once a week, without systemd: wait for the hour, run a command, catch up what was missed.

::

    WORKSPACE/weekly/last.json   the slot that was last dealt with
    WORKSPACE/weekly/lock        held by the one loop of a workspace; the kernel frees it
"""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import threading
import zoneinfo
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from vnquant.errors import RETRY, RetryableError, UsageError
from vnquant.workspace import locked, read_json, write_json

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
AT, ZONE = "Sun 02:00", "Asia/Ho_Chi_Minh"
NAP = dt.timedelta(minutes=5)
"""The longest sleep at a time: the clock may be set, and a laptop may sleep too."""
AGAIN = dt.timedelta(minutes=15)
"""Before a command that ended with "worth retrying" is run once more."""
RETRIES = 4
WEEK = dt.timedelta(days=7)


@dataclass(frozen=True)
class Slot:
    """A weekday (Monday is 0) and a time of day in a time zone."""

    day: int
    time: dt.time
    zone: zoneinfo.ZoneInfo

    @staticmethod
    def parse(at: str, zone: str) -> Slot:
        """From ``Sun 02:00`` and a name of the time zone database.

        Raises:
            UsageError: one of the two says nothing.
        """
        try:
            day, time = at.split()
            return Slot(
                DAYS.index(day.capitalize()),
                dt.datetime.strptime(time, "%H:%M").time(),
                zoneinfo.ZoneInfo(zone),
            )
        except (ValueError, KeyError, OSError) as error:
            raise UsageError(
                f"{at!r} in {zone!r} is no time of the week ({error})",
                where="--at, --zone",
                fix=f"write it as --at '{AT}' --zone {ZONE}",
            ) from None

    def last(self, moment: dt.datetime) -> dt.datetime:
        """The newest slot at or before an aware ``moment``, in UTC."""
        here = moment.astimezone(self.zone)
        day = here.date() - dt.timedelta(days=(here.weekday() - self.day) % 7)
        slot = self._on(day)
        return slot if slot <= moment else self._on(day - WEEK)

    def after(self, moment: dt.datetime) -> dt.datetime:
        """The first slot later than ``moment``, in UTC."""
        return self._on(self.last(moment).astimezone(self.zone).date() + WEEK)

    def _on(self, day: dt.date) -> dt.datetime:
        return dt.datetime.combine(day, self.time, self.zone).astimezone(dt.UTC)

    def calendar(self) -> str:
        """The same for systemd's OnCalendar."""
        return f"{DAYS[self.day]} *-*-* {self.time:%H:%M}:00 {self.zone.key}"


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> dt.datetime:
        """Aware."""
        ...

    def sleep(self, length: dt.timedelta) -> bool:
        """Returns whether the loop shall end."""
        ...


class Wall:
    """The clock on the wall. SIGTERM and SIGINT end a sleep, and reach the command at work."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._ask)

    def _ask(self, signum: int, _frame: FrameType | None) -> None:
        self._asked.set()
        if self._child is not None:
            self._child.send_signal(signum)

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def sleep(self, length: dt.timedelta) -> bool:
        return self._asked.wait(length.total_seconds())

    def run(self, words: Sequence[str]) -> int:
        """Run ``vnquant WORDS`` to its end; returns its exit code."""
        # A session of its own: Ctrl-C reaches it once, through us.
        command = [sys.executable, "-m", "vnquant", *words]
        self._child = subprocess.Popen(command, start_new_session=True)
        if self._asked.is_set():
            self._child.terminate()
        code = self._child.wait()
        self._child = None
        return 128 - code if code < 0 else code


def keep(
    slot: Slot, workspace: Path, run: Callable[[], int], clock: Clock, say: Callable[[str], None]
) -> None:
    """Run once in every slot until the clock says that it is enough.

    Slots that were missed while nobody waited are made up for at once, all of them by one run. A
    run that was cut off, by a signal or with this process, is made up for too.

    Raises:
        RetryableError: another loop waits in this workspace.
    """
    folder = workspace / "weekly"
    with locked(folder / "lock", wait=False) as free:
        if not free:
            raise RetryableError(
                "another loop waits in this workspace", where=str(folder), fix="end that one first"
            )
        last, told, tries = _last(folder), False, 0
        if last is None:
            # As with systemd: what was due before it was first switched on is not made up for.
            last = slot.last(clock.now())
            _note(folder, last)
        while True:
            due, now = slot.after(last), clock.now()
            if due > now:
                if not told:
                    say(f"Next run: {due.astimezone(slot.zone):%a %Y-%m-%d %H:%M %Z}.")
                told = True
                if clock.sleep(min(due - now, NAP)):
                    return
                continue
            newest = slot.last(now)
            say(f"Run of {newest.astimezone(slot.zone):%a %Y-%m-%d %H:%M %Z}.")
            code = run()
            say(f"It ended with exit code {code}.")
            if clock.sleep(dt.timedelta()):
                return
            if code == RETRY and tries < RETRIES:
                tries += 1
                if clock.sleep(AGAIN):
                    return
                continue
            last, told, tries = newest, False, 0
            _note(folder, last)


def _last(folder: Path) -> dt.datetime | None:
    kept = read_json(folder / "last.json")
    try:
        return dt.datetime.fromisoformat(kept["slot"])
    except (TypeError, KeyError, ValueError):
        return None


def _note(folder: Path, slot: dt.datetime) -> None:
    write_json(folder / "last.json", {"slot": slot.isoformat()})
