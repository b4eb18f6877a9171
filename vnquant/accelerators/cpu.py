"""CPU: one place sets affinity, OpenMP and torch's threads together; everything is float32."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Collection
from pathlib import Path

import torch

from vnquant.accelerators import affinity
from vnquant.accelerators.ipex import IpexChoice, decide
from vnquant.accelerators.profile import Profile
from vnquant.accelerators.topology import Kind, Topology, read
from vnquant.spec import TrainingSpec

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def processor_name() -> str:
    """The model name that Linux reports, else Python's guess."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def choose_cpus(
    topology: Topology, cores: Kind, allowed: Collection[int] | None = None
) -> tuple[tuple[int, ...], str | None]:
    """Logical CPUs to compute on, one for each core; and a note where the wish could not be met."""
    chosen = topology.cpus(cores, allowed)
    if not chosen:
        fallback = topology.cpus("all", allowed)
        return fallback, f"none of the {cores} cores may be used here: all cores are"
    if cores == "e" and not topology.hybrid:
        return chosen, "this machine has one kind of core: all are used"
    return chosen, None


def keep_freed_memory() -> bool:
    """Have glibc keep what tensors give back, instead of returning it to the kernel each time.

    A step allocates and frees the same large blocks again and again; fresh pages from the kernel
    are zeroed first, which was a quarter of a step's processor time (benchmarks/NOTES.md).
    `vnquant.training.memory.release_memory` still gives everything back when it matters.

    Returns:
        Whether this C library could be told; others do as they please.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    no_mmap = mallopt(M_MMAP_MAX, 0)
    never_trim = mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(no_mmap and never_trim)


def configure(
    training: TrainingSpec,
    *,
    threads: int | None,
    compiled: bool | None,
    cores: Kind | None = None,
    ipex: IpexChoice = "auto",
    cpus: tuple[int, ...] | None = None,
) -> Profile:
    """Set up this process.

    Args:
        cpus: bind to these logical CPUs, whatever kind they are: the process is one of a team.
        cores: bind to P cores, E cores or all; None: P cores on a hybrid processor, because a
            step waits for its slowest thread, and no binding elsewhere.
    """
    topology = read()
    kind: Kind = cores or ("p" if topology.hybrid else "all")
    chosen, note = (cpus, None) if cpus else choose_cpus(topology, kind, affinity.given())
    if (cpus or cores is not None or topology.hybrid) and chosen:
        affinity.bind(chosen)
    # torch ignores affinity when it picks its thread count, so both are always set.
    count = threads or len(chosen) or 1
    os.environ["OMP_NUM_THREADS"] = str(count)  # for libraries that are loaded later, and children
    torch.set_num_threads(count)
    keep_freed_memory()
    dtype = "bfloat16" if training.precision == "bfloat16" else "float32"
    used, why = decide(ipex)
    return Profile(
        device="cpu",
        name=processor_name(),
        dtype=dtype,
        threads=count,
        compile=bool(compiled),
        topology=topology.describe(),
        cores=kind if note is None else f"{kind} ({note})",
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        ipex=used,
        ipex_reason=why,
    )
