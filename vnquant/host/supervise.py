"""Run a command, hand signals on to it, and leave its exit code in a file.

``python -m vnquant.host.supervise FILE -- COMMAND...`` keeps the exit code of a detached run for a
controller that may have died and come back: the kernel tells it to a parent only.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from vnquant.workspace import write_json


def main(words: list[str]) -> int:
    """Returns the command's exit code; 128 + n if signal n ended it."""
    result, command = Path(words[0]), words[2:]
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
    code = child.wait()
    code = 128 - code if code < 0 else code
    write_json(result, {"exit_code": code})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
