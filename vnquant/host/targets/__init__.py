"""Where a run executes. Every target passes the same tests and knows nothing of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from vnquant.errors import UsageError
from vnquant.host.findings import Finding

NAMES = ("local", "cpu", "cuda", "colab")
Record = dict[str, Any]
STARTING = 30.0
"""Seconds in which a launch that cannot be seen yet counts as being started, not as lost."""


class LaunchSpec(BaseModel):
    """Where and how a run executes; never part of its digest, never in its results.

    Attributes:
        target: one of `NAMES`.
        workspace: absolute folder on this host.
        run_id: of a run whose spec.json lies in the workspace.
        stages: what to run, in order.
        prices: file or folder with prices; None: simulated ones.
        words: options for ``vnquant run`` that are the same in every target.
        image: tag of a container image; None: the target's own.
        cpuset: logical CPUs, as in 0-7,16; None: the run itself chooses (docs/cores.md).
        memory: bytes; None: no limit.
        grace: seconds between asking a run to save and killing it.
        retries: how often to start again after something that may pass.
        losses: how often to start again after a lost machine; None: as `retries`.
        gpus: accelerators of a lent machine in the order of preference; none: a CPU machine.
        max_hours, max_units: what all launches of this run together may cost; None: no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Literal["local", "cpu", "cuda", "colab"]
    workspace: Path
    run_id: str
    stages: tuple[str, ...]
    prices: Path | None = None
    words: tuple[str, ...] = ()
    image: str | None = None
    cpuset: str | None = None
    memory: int | None = None
    grace: float = 60.0
    retries: int = 2
    losses: int | None = None
    gpus: tuple[str, ...] = ()
    max_hours: float | None = None
    max_units: float | None = None

    @property
    def run(self) -> Path:
        return self.workspace / "runs" / self.run_id


class State(NamedTuple):
    """What became of a launch. ``unknown``: the provider does not answer now; nothing follows."""

    status: Literal["running", "exited", "lost", "unknown"]
    exit_code: int | None = None
    note: str = ""


class Target(Protocol):
    """One place to execute. A record names a launch for good: it outlives this process."""

    def preflight(self, launch: LaunchSpec) -> list[Finding]:
        """Everything that can be known to go wrong before anything is started."""
        ...

    def start(self, launch: LaunchSpec, record: Record) -> Record:
        """Start; returns what to add to the record.

        Raises:
            UsageError, RetryableError: it did not start, and nothing is left behind.
        """
        ...

    def poll(self, record: Record) -> State:
        """The state now. Never raises for a provider that does not answer."""
        ...

    def output(self, record: Record, *, follow: bool) -> Iterator[str]:
        """Lines of the program's output; with ``follow`` until it has ended."""
        ...

    def stop(self, record: Record, grace: float) -> None:
        """Ask it to save and leave, wait up to ``grace`` seconds, then kill it.

        Raises:
            RetryableError: the provider does not answer; the launch goes on.
        """
        ...

    def remove(self, record: Record) -> bool:
        """Clear up what an ended launch has left with the provider, but keep its output.

        Returns:
            Whether nothing is left there.
        """
        ...


def open_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none.
    """
    if name == "local":
        from vnquant.host.targets.local import LocalTarget

        return LocalTarget()
    if name == "colab":
        from vnquant.host.targets.colab import ColabTarget

        return ColabTarget()
    if name in NAMES:
        from vnquant.host.targets.container import ROWS, ContainerTarget

        return ContainerTarget(ROWS[name])
    raise UsageError(f"there is no target {name}", where="--target", fix=f"use {', '.join(NAMES)}")
