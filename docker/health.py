#!/opt/venv/bin/python -IS
"""Is the container's process working? Exit 0: yes; 1: it hangs, with one sentence on stdout.

A run that has ended needs no check: its container ends with it. What a check can add is a run that
is there and does nothing. So: since the last check the processes have used processor time, or the
run's event log or the publisher's status file has been written in the last IDLE seconds.
Standard library only, and no import of vnquant: it must answer in milliseconds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

IDLE = 300.0  # seconds without a sign of life
BUSY = 0.02  # processor seconds since the last check that count as work
SEEN = Path("/tmp/.vnquant-health")
SIGNS = ("runs/*/events.jsonl", "publish/status.json")


def processor_seconds(proc: Path = Path("/proc")) -> float:
    """User and system time of every process here and of their ended children, our own left out."""
    total = 0
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # ended meanwhile
            total += sum(int(value) for value in fields[11:13])
    return total / os.sysconf("SC_CLK_TCK")


def last_sign(workspace: Path) -> float:
    """Time of the newest file that a working process keeps writing."""
    times = [0.0]
    for pattern in SIGNS:
        for path in workspace.glob(pattern):
            try:
                times.append(path.stat().st_mtime)
            except OSError:
                continue
    return max(times)


def main() -> int:
    """Compare with the last check, and remember this one."""
    now, used = time.time(), processor_seconds()
    try:
        before, alive = (float(word) for word in SEEN.read_text().split())
    except (OSError, ValueError):
        before, alive = 0.0, now
    if used - before >= BUSY or used < before:
        alive = now
    alive = max(alive, min(now, last_sign(Path(os.environ.get("VNQUANT_WORKSPACE", "/workspace")))))
    SEEN.write_text(f"{used} {alive}")
    if now - alive > IDLE:
        print(f"no processor time used and nothing written for {now - alive:.0f} s")
        return 1
    print(f"last sign of life {now - alive:.0f} s ago")
    return 0


if __name__ == "__main__":
    sys.exit(main())
