"""The ``vnquant`` command, and ``python -m vnquant``.

On a host the commands of `vnquant.host` are there too; images leave that package out, and the
same entry point then offers what runs inside a runtime.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from vnquant.cli import cli, main


def commands() -> Any:
    """The group of every command that this installation has."""
    if find_spec("vnquant.host") is None:
        return cli
    from vnquant.host.cli import cli as host

    return host


def start() -> None:
    """Entry point of the ``vnquant`` command."""
    main(group=commands())


if __name__ == "__main__":
    start()
