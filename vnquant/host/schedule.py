"""A systemd timer that runs the cycle every week, also when the machine was off at the time."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from vnquant.errors import RetryableError, UsageError
from vnquant.host import process
from vnquant.weekly import Slot
from vnquant.workspace import write_bytes

NAME = "vnquant-weekly"
TIMER, SERVICE = f"{NAME}.timer", f"{NAME}.service"
PATIENCE = 30.0
"""Seconds that systemd may take to answer."""


def folder(*, system: bool) -> Path:
    """Where systemd looks for units, of the whole machine or of this user."""
    if system:
        return Path("/etc/systemd/system")
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home, "systemd", "user")


def quoted(word: str) -> str:
    """A word of a command line as a unit file wants it: no variable, no specifier, one word."""
    for special, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, written)
    return f'"{word}"'


def units(words: Sequence[str], slot: Slot, directory: Path, *, system: bool) -> dict[str, str]:
    """The text of both units, by file name.

    Args:
        words: of ``vnquant``.
        directory: where the command runs; relative paths in ``words`` begin there.
    """
    command = " ".join(quoted(w) for w in (sys.executable, "-m", "vnquant", *words))
    network = "Wants=network-online.target\nAfter=network-online.target\n" if system else ""
    service = f"""\
[Unit]
Description=vnquant: the weekly cycle
{network}StartLimitIntervalSec=6h
StartLimitBurst=5

[Service]
# Not oneshot, for which systemd knows no restart after a certain exit code.
Type=exec
WorkingDirectory={str(directory).replace("%", "%%")}
ExecStart={command}
Nice=10
# Some symbols failed: finished all the same.
SuccessExitStatus=4
# Worth retrying.
RestartForceExitStatus=5
RestartSec=15min
# The command is told first, and has what it started save.
KillMode=mixed
TimeoutStopSec=5min
"""
    timer = f"""\
[Unit]
Description=vnquant: when the weekly cycle runs

[Timer]
OnCalendar={slot.calendar()}
# After the machine was off: as soon as it is on.
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {SERVICE: service, TIMER: timer}


def install(words: Sequence[str], slot: Slot, *, system: bool, into: Path | None = None) -> Path:
    """Write both units and switch the timer on; returns their folder.

    Args:
        into: write them there instead, and switch nothing on.

    Raises:
        UsageError: systemd would not accept them; or they cannot be written.
        RetryableError: systemd does not answer; nothing is left behind.
    """
    target = into or folder(system=system)
    try:
        for name, text in units(words, slot, Path.cwd(), system=system).items():
            write_bytes(target / name, text.encode())
    except OSError as error:
        raise UsageError(
            f"cannot be written ({error.strerror})",
            where=str(target),
            fix="leave --system out, or run it as root",
        ) from error
    try:
        check(target)
        if into is None:
            systemctl("daemon-reload", system=system)
            systemctl("enable", "--now", TIMER, system=system)
    except (UsageError, RetryableError):
        for name in (TIMER, SERVICE):
            (target / name).unlink(missing_ok=True)
        raise
    return target


def check(target: Path) -> None:
    """Have systemd read the units, where it is installed.

    Raises:
        UsageError: it does not accept them.
    """
    if shutil.which("systemd-analyze") is None:
        return
    files = [str(target / name) for name in (TIMER, SERVICE)]
    done = process.run(["systemd-analyze", "verify", *files], timeout=PATIENCE, check=False)
    # Of other units it may complain as well.
    ours = [line for line in done.err.splitlines() if NAME in line]
    if done.code != 0 and ours:
        raise UsageError("; ".join(ours), where=str(target), fix="change --at, --zone or the words")


def systemctl(*words: str, system: bool) -> str:
    """Raises RetryableError if systemd does not answer, or does not do it."""
    scope = () if system else ("--user",)
    try:
        return process.run(["systemctl", *scope, *words], timeout=PATIENCE).out
    except (RetryableError, UsageError) as error:
        raise RetryableError(
            f"systemd did not do it ({error.what})",
            where=f"systemctl {' '.join((*scope, *words))}",
            fix="where there is no systemd use `vnquant weekly` or the compose profile schedule "
            "(docs/schedule.md)",
        ) from None


def remove(*, system: bool) -> list[Path]:
    """Switch the timer off and delete the units; returns the files that were there."""
    target = folder(system=system)
    there = [target / name for name in (TIMER, SERVICE) if (target / name).exists()]
    if there:
        systemctl("disable", "--now", TIMER, system=system)
        for path in there:
            path.unlink(missing_ok=True)
        systemctl("daemon-reload", system=system)
    return there
