"""Borrow a machine, and give it back for certain."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vnquant.errors import RetryableError
from vnquant.host import process
from vnquant.host.colab.command import ACCELERATORS, Colab

ALLOCATING = 600.0
REFUSED = ("Backend rejected accelerator", "Allocation refused")
MOUNTED = ("Mounted at", "already mounted")
TRIES, PAUSE = 3, 5.0
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def session(workspace: Path, launch: str) -> Colab:
    """The session of a launch; its file is in ``WORKSPACE/colab``, which is never published."""
    name = f"vnquant-{launch}"
    return Colab(name, workspace / "colab" / f"{name}.json")


def allocate(colab: Colab, gpus: Sequence[str], note: Callable[[str], None]) -> tuple[str, str]:
    """The first machine of the list that is granted, as (endpoint, hardware).

    Args:
        gpus: in the order of preference; empty: a machine without any.
        note: called with each refusal.

    Raises:
        RetryableError: none is granted now; nothing is left allocated.
    """
    why = ""
    for gpu in gpus or ("",):
        assert not gpu or gpu in ACCELERATORS
        granted, why = _try(colab, gpu)
        if granted is not None:
            return granted
        note(f"{gpu or 'a CPU machine'}: {why}")
    raise RetryableError(
        f"no machine was granted ({why})", where="--gpu", fix="try again later, or list more kinds"
    )


def _try(colab: Colab, gpu: str) -> tuple[tuple[str, str] | None, str]:
    """A machine of this kind, or why there is none."""
    why = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        done = colab.on("new", *(("--gpu", gpu) if gpu else ()), timeout=ALLOCATING)
        endpoint = colab.endpoint()
        if done.code == 0 and endpoint:
            hardware = (colab.machines() or {}).get(endpoint)
            if hardware == (gpu or "CPU"):
                return (endpoint, hardware), ""
            release(colab, endpoint)
            return None, f"{hardware or 'nothing'} was granted instead"
        if endpoint:
            release(colab, endpoint)
        why = process.last_words(done, 200).splitlines()[-1]
        if any(text in done.err + done.out for text in REFUSED):
            return None, why
    return None, why


def mount(colab: Colab, probe: str) -> None:
    """Mount Drive, and see that it is there.

    Args:
        probe: Python that answers whether it is.

    Raises:
        RetryableError: it is not.
    """
    # The exit code is 0 for a failed mount as well. A refused consent takes 120 s to fail.
    done = colab.on("drivemount", timeout=300)
    with contextlib.suppress(RetryableError):
        if any(text in done.out for text in MOUNTED) and colab.ask(probe):
            return
    raise RetryableError(
        f"Drive could not be mounted ({process.last_words(done, 200)})",
        where=f"session {colab.name}",
        fix="run `colab new` and `colab drivemount` once by hand, and grant access to Drive",
    )


def release(colab: Colab, endpoint: str | None) -> bool:
    """Give the machine back; returns whether it is known to be gone."""
    endpoint = colab.endpoint() or endpoint
    if endpoint is None:
        return True
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        machines = colab.machines()
        if machines is None:
            continue
        if endpoint not in machines:
            colab.state.unlink(missing_ok=True)
            return True
        if colab.endpoint() != endpoint:
            colab.adopt(endpoint)
        with contextlib.suppress(RetryableError):
            colab.on("stop")
    return False


def usage(colab: Colab) -> tuple[float, float] | None:
    """Compute units left, and units per hour of all machines now; None if not known."""
    try:
        done = colab.run("usage")
    except RetryableError:
        return None
    found = [NUMBER.findall(line.partition(":")[2]) for line in done.out.splitlines()]
    numbers = [float(line[0]) for line in found if line]
    return (numbers[0], numbers[1]) if done.code == 0 and len(numbers) >= 2 else None
