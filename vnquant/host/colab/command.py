"""The ``colab`` command as a child process, under deadlines of our own.

Its ``--timeout`` is none, its exit code 0 says little, and its log holds tokens; see docs/colab.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from vnquant.errors import RetryableError, UsageError
from vnquant.host import process

VARIABLE = "VNQUANT_COLAB"
ACCELERATORS = ("T4", "L4", "G4", "A100", "H100")
"""What ``--gpu`` of the command knows. Any other word silently becomes an A100."""
MARK = "VNQUANT-ANSWER "
LINE = re.compile(r"^\[(?P<name>.*?)\] (?P<endpoint>\S+) \| Hardware: (?P<hardware>\w+)", re.M)
CONTROL = 120.0
"""Seconds for a command that only asks."""
TRANSFER = 900.0
"""Seconds for a file to go up or down."""


def program() -> str:
    """The command: what ``VNQUANT_COLAB`` names, else the first on PATH.

    Raises:
        UsageError: there is none.
    """
    found = os.environ.get(VARIABLE) or shutil.which("colab")
    if not found:
        raise UsageError(
            "the colab command is not installed",
            where="--target colab",
            fix=f"python tools/colab.py installs it; {VARIABLE} may name another (docs/colab.md)",
        )
    return found


class Colab:
    """One session of the command, with a file of its own for what the command knows about it.

    Args:
        name: of the session, unique on the account.
        state: the command's session file. It holds the machine's token, so it is for us alone.
    """

    def __init__(self, name: str, state: Path) -> None:
        self.name, self.state = name, state

    def run(self, *words: str, timeout: float = CONTROL) -> process.Finished:
        """Run ``colab WORDS``; the caller judges by more than the exit code.

        Raises:
            RetryableError: it took longer than ``timeout`` seconds.
        """
        self.state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return process.run(
            [program(), "--config", str(self.state), *words],
            timeout=timeout,
            env={"TYPER_STANDARD_TRACEBACK": "1"},
            check=False,
            # Ctrl-C is the controller's to handle; cut here, a machine might stay unknown.
            detached=True,
        )

    def on(self, command: str, *words: str, timeout: float = CONTROL) -> process.Finished:
        """Run a command that belongs to this session."""
        return self.run(command, "-s", self.name, *words, timeout=timeout)

    def ask(self, code: str, *, timeout: float = CONTROL) -> Any:
        """Run Python in the machine's kernel; returns what it gave to ``answer(value)``, as JSON.

        Raises:
            RetryableError: no answer came, for whatever reason.
        """
        prelude = (
            f"import json\ndef answer(value): print({MARK!r} + json.dumps(value), flush=True)\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "cell.py"
            script.write_text(prelude + code, encoding="utf-8")
            # The command's own timeout bounds how late it notices a lost connection.
            done = self.on("exec", "-f", str(script), "--timeout", "60", timeout=timeout)
        for line in done.out.splitlines():
            _, mark, value = line.partition(MARK)
            if mark:
                # Another thread of the kernel may print on the same line.
                return json.JSONDecoder().raw_decode(value)[0]
        raise RetryableError(
            f"gave no answer ({process.last_words(done, 200)})", where=f"session {self.name}"
        )

    def machines(self) -> dict[str, str] | None:
        """Every machine of the account, as endpoint to hardware; None if that cannot be known."""
        try:
            # An expired login makes `sessions` say that there is none. `usage` fails instead.
            if self.run("usage").code != 0:
                return None
            done = self.run("sessions")
        except RetryableError:
            return None
        if done.code != 0:
            return None
        return {m["endpoint"]: m["hardware"] for m in LINE.finditer(done.out)}

    def endpoint(self) -> str | None:
        """What the command's own file says about the machine's address."""
        try:
            found = json.loads(self.state.read_text(encoding="utf-8"))[self.name]["endpoint"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return str(found) or None

    def adopt(self, endpoint: str) -> None:
        """Make the command know a machine again that it has struck off its list."""
        bare = {"name": self.name, "token": "", "url": "", "endpoint": endpoint}
        self.state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state.touch(mode=0o600)
        self.state.write_text(json.dumps({self.name: bare}), encoding="utf-8")
