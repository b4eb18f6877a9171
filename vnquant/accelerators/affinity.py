"""The one place that binds this process to cores. Standard library only: no stage need load torch.

Children and threads inherit a binding, so what this process was given at its start is remembered:
a stage that is bound to slow cores must not make the next one believe that there are no others.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from functools import cache

from vnquant.accelerators.topology import Kind, Topology, read
from vnquant.errors import UsageError

Cpus = tuple[int, ...]
LIGHT_STAGES = frozenset({"ingest", "features"})
"""Stages that leave the fast cores to training, of this run or of another one."""


@cache
def given() -> frozenset[int]:
    """Logical CPUs this process was started with, which a container or taskset may have cut."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def bind(cpus: Collection[int]) -> None:
    """Bind this thread, and whatever it starts from now on, to logical CPUs."""
    given()
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def bind_for(stage: str, cores: Kind | None, topology: Topology | None = None) -> None:
    """Before a stage: the light ones go to E cores, where there are both kinds and no wish."""
    if cores is not None or stage not in LIGHT_STAGES:
        return
    topology = topology or read()
    if topology.hybrid:
        bind(topology.threads("e", given()))


def teams(
    topology: Topology,
    cores: Kind,
    count: int | None = None,
    allowed: Collection[int] | None = None,
) -> list[Cpus]:
    """Cores that compute together, for processes that share the work; one logical CPU for each.

    Every team has as many cores as the others, so that it does not matter to a model's bits who
    trains it, and cores of one kind, so that no step waits for a slow one.

    Args:
        cores: which cores there are to divide.
        count: how many teams; None: one, but for all cores of a hybrid processor the fewest that
            use every core (8 P and 12 E cores: five teams of four).
        allowed: as for `Topology.cpus`.

    Returns:
        Empty if one process should do it all.

    Raises:
        UsageError: more teams than cores.
    """
    kinds = [topology.cpus(k, allowed) for k in ("p", "e")]
    if not topology.hybrid or cores != "all" or not all(kinds):
        kinds = [topology.cpus(cores, allowed)]
    if count is None:
        size = math.gcd(*map(len, kinds)) if len(kinds) > 1 else 0
    else:
        # The largest size of which there are enough teams; cores may be left over.
        sizes = range(max(map(len, kinds)), 0, -1)
        size = next((s for s in sizes if sum(len(k) // s for k in kinds) >= count), 0)
        if not size:
            raise UsageError(
                f"{count} teams are more than the {sum(map(len, kinds))} cores that may be used",
                where="--teams",
                fix="give each team at least one core",
            )
    if count == 1 or not size:
        return []
    found = [k[i : i + size] for k in kinds for i in range(0, len(k) - size + 1, size)]
    return found[:count]
