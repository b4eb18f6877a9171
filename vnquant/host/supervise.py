"""Run a command, hand signals on to it, and leave its exit code in a file.

``python -m vnquant.host.supervise FOLDER/NAME -- COMMAND...`` keeps what the kernel tells to a
parent only, for a controller that may have died and come back::

    NAME.process.json   process ids and their start times, as soon as the command runs
    NAME.exit.json      the exit code, when it has ended
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from vnquant.errors import VnquantError
from vnquant.host.process import started_at
from vnquant.workspace import write_json


def main(words: list[str]) -> int:
    """Returns the command's exit code; 128 + n if signal n ended it."""
    name, command = Path(words[0]), words[2:]
    # Signals stay blocked until there is somebody to hand them to.
    handled = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    # The child must not inherit the blocked mask. This process has one thread, so that is safe.
    child = subprocess.Popen(
        command,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, handled),  # noqa: PLW1509
    )

    def forward(signum: int, _frame: FrameType | None) -> None:
        child.send_signal(signum)

    for signum in handled:
        signal.signal(signum, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
    processes = [[pid, started_at(pid)] for pid in (os.getpid(), child.pid)]
    with contextlib.suppress(OSError, VnquantError):  # a full disk must not leave the run alone
        write_json(name.with_name(name.name + ".process.json"), {"processes": processes})
    code = child.wait()
    code = 128 - code if code < 0 else code
    write_json(name.with_name(name.name + ".exit.json"), {"exit_code": code})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
