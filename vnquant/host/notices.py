"""Tell people how a cycle ended, by Telegram, mail, Discord and whatever else apprise knows.

An address holds its service's token, so it is a secret: addresses come from a file or from the
environment, go to the sending process through a pipe, and are never quoted, logged or recorded.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from vnquant.errors import UsageError, VnquantError
from vnquant.host import process

VARIABLE = "VNQUANT_NOTIFY"
"""Addresses, separated by white space, beside those of the file."""
SECONDS = 15.0
"""How long a service may take."""
STARTING = 15.0
"""Seconds more for the sending process itself."""


def addresses(file: Path | None) -> list[str]:
    """What to notify: the file's lines (# begins a comment), then those of the environment.

    Raises:
        UsageError: the file cannot be read.
    """
    lines: list[str] = []
    if file is not None:
        try:
            lines = file.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(
                f"cannot be read ({why})",
                where=f"--notify {file}",
                fix="give a file with one address a line (docs/weekly.md)",
            ) from None
    words = [line.strip() for line in lines] + os.environ.get(VARIABLE, "").split()
    return [w for w in words if w and not w.startswith("#")]


def send(
    urls: list[str], title: str, body: str, *, good: bool, seconds: float = SECONDS
) -> list[str]:
    """Send to all addresses; returns a sentence for each that was not reached. Never raises."""
    if not urls:
        return []
    message = {"urls": urls, "title": title, "body": body, "good": good, "seconds": seconds}
    try:
        done = process.run(
            [sys.executable, "-m", "vnquant.host.notify"],
            input=json.dumps(message).encode(),
            timeout=seconds + STARTING,
            check=False,
        )
        answers = json.loads(done.out)
    except VnquantError as error:
        return [f"No notice was sent: {error}"]
    except ValueError:
        # Its own words might quote an address.
        return ["No notice was sent: is apprise installed? It comes with the extra host."]
    said = []
    for number, answer in enumerate(answers, start=1):
        name = f"Notice to address {number}"
        if answer["hangs"]:
            said.append(f"{name}: no answer within {seconds:g} s; given up.")
        elif answer["service"] is None:
            said.append(f"{name}: apprise knows no such kind of address.")
        elif not answer["delivered"]:
            said.append(f"{name} ({answer['service']}): refused, or not to be reached.")
    return said
