"""Lists of logical CPUs as the kernel and Docker write them: ``0-7,16``."""

from __future__ import annotations

import os
from collections.abc import Iterable

from vnquant.accelerators.topology import cpu_list
from vnquant.errors import UsageError


def parse(text: str) -> tuple[int, ...]:
    """``0-3,8`` as numbers.

    Raises:
        UsageError: it is no such list.
    """
    try:
        return tuple(sorted(cpu_list(text)))
    except ValueError:
        raise UsageError(
            f"{text!r} is no list of CPUs", where="--cpuset", fix="write it as 0-7,16"
        ) from None


def written(cpus: Iterable[int]) -> str:
    """Numbers as a list with ranges."""
    parts: list[str] = []
    run: list[int] = []
    for cpu in [*sorted(cpus), -1]:
        if run and cpu != run[-1] + 1:
            parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]))
            run = []
        run.append(cpu)
    return ",".join(parts)


def usable(cpus: Iterable[int]) -> set[int]:
    """Those of them that this machine has; an engine refuses a list with any other."""
    return set(cpus) & set(range(os.cpu_count() or 1))
