"""How many processes share a CPU's training: measured once for a machine and a model, then kept.

One process with all cores waits for its slowest thread many times a step; one process for each core
never waits, but shares caches and memory with the others and holds its own data. Which is faster
depends on the processor and on the size of the model, so it is tried.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vnquant.accelerators import affinity
from vnquant.accelerators.affinity import Cpus
from vnquant.accelerators.cpu import processor_name
from vnquant.accelerators.topology import Kind, Topology
from vnquant.errors import UsageError
from vnquant.stages.context import Context
from vnquant.stages.fleet import Fleet
from vnquant.stages.teams import say
from vnquant.workspace import read_json, write_json

WORTH_OPERATIONS = 2e14
"""A job of fewer floating-point operations is not worth a trial: some 22,000 model-steps of `base`,
or 23 minutes at the 62.5 ms each that two cores of a Xeon took (2026-11-24, report of peers)."""
MEMORY_PER_TEAM = 2_000_000_000
"""Bytes of host memory that a process needs to be worth starting."""
GAIN = 1.05
"""How much faster several processes must be: a single one is simpler and needs less memory."""
SECONDS = 2.0
PATIENCE = 180.0
"""Seconds in which all processes of a layout must be ready and done; a trial must never hold up the
training that it is for."""


class Layout(NamedTuple):
    """One way to divide the cores."""

    cores: Kind
    teams: tuple[Cpus, ...]

    def __str__(self) -> str:
        kind = "" if self.cores == "all" else f" on {self.cores} cores"
        return f"{len(self.teams)} x {len(self.teams[0])} threads{kind}"


def candidates(
    topology: Topology, cores: Kind | None, allowed: Collection[int], most: int
) -> list[Layout]:
    """The layouts to try, one process with all threads first.

    Args:
        cores: the kind that was asked for; None: P cores, and all of them too where there are both
            kinds.
        most: teams that memory allows.
    """
    found: list[Layout] = []
    kinds: list[Kind] = [cores] if cores else ["p", "all"] if topology.hybrid else ["all"]
    for kind in kinds:
        cpus = topology.cpus(kind, allowed)
        if not (topology.hybrid and kind == "all"):
            found.append(Layout(kind, (cpus,)))
        for size in (8, 4, 2, 1):
            try:
                teams = affinity.teams(topology, kind, len(cpus) // size, allowed)
            except UsageError:
                continue
            whole = sum(map(len, teams)) == len(cpus) and {len(t) for t in teams} == {size}
            if whole and 1 < len(teams) <= most:
                found.append(Layout(kind, tuple(teams)))
    return found


def operations(fleet: Fleet) -> float:
    """What a fleet still needs: about six floating-point operations for each weight and token."""
    spec = fleet.ctx.spec
    tokens = spec.training.batch_size * spec.windows.lookback
    left = (m for m in fleet.wanted if not fleet.finished(m))
    return float(sum(6.0 * fleet.shape(m).row * tokens * fleet.steps_left(m) for m in left))


def choose(fleet: Fleet, topology: Topology, limit: int) -> list[Cpus] | None:
    """The teams to train a fleet with; empty if one process should do it all, None if a trial is
    not worth its time.

    The trial's outcome is kept in the workspace for this processor, torch and model.

    Args:
        limit: bytes of host memory for all of them.
    """
    ctx = fleet.ctx
    ways = candidates(topology, ctx.options.cores, affinity.given(), limit // MEMORY_PER_TEAM)
    if len(ways) < 2 or ctx.options.threads or operations(fleet) < WORTH_OPERATIONS:
        return None
    path = kept(ctx, ways)
    known = read_json(path)
    if not isinstance(known, dict) or len(known.get("rates", ())) != len(ways):
        rates = [measure(ctx, way) for way in ways]
        known = {"processor": processor_name(), "layouts": [str(w) for w in ways], "rates": rates}
        if all(rates):  # one that failed or hung today may do better on another day
            write_json(path, known)
    best = pick(known["rates"])
    ctx.events.emit("layout", chosen=str(ways[best]), **known)
    return list(ways[best].teams) if len(ways[best].teams) > 1 else []


def pick(rates: Sequence[float]) -> int:
    """The fastest layout, or the first if that is not clearly slower."""
    best = max(range(len(rates)), key=lambda i: rates[i])
    return best if rates[best] > GAIN * rates[0] else 0


def kept(ctx: Context, ways: Sequence[Layout]) -> Path:
    """Where the outcome for this machine, torch and size of model is kept."""
    s = ctx.spec
    size = [s.model.model_dump(mode="json"), s.training.batch_size, s.windows.lookback]
    key = json.dumps([processor_name(), torch.__version__, [str(w) for w in ways], size])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return ctx.workspace.path / "machines" / f"layout-{digest}.json"


def measure(
    ctx: Context, way: Layout, seconds: float = SECONDS, patience: float = PATIENCE
) -> float:
    """Steps a second of all processes together, each of a stack of `probe.MODELS` models; 0 if one
    of them failed, or was not done after ``patience`` seconds, which an event tells."""
    job: dict[str, Any] = {
        "spec": ctx.spec.canonical_json(),
        "features": ctx.panel.features.shape[1],
        "seconds": seconds,
    }
    crew = [_start({**job, "cpus": cpus}) for cpus in way.teams]

    def give_up() -> None:
        ctx.events.emit("layout_hangs", layout=str(way), seconds=patience + seconds)
        for process in crew:
            process.kill()  # whoever waits for a line of it is told that there will be none

    deadline = threading.Timer(patience + seconds, give_up)
    deadline.start()
    try:
        if any(_line(p) != "ready" for p in crew):
            return 0.0
        for process in crew:
            say(process, "begin")
        told = [json.loads(_line(p) or "{}") for p in crew]
        return float(round(sum(t["steps"] / t["seconds"] for t in told), 4)) if all(told) else 0.0
    finally:
        deadline.cancel()
        for process in crew:
            process.kill()
            process.communicate()


def _start(job: dict[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vnquant.training.probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    say(process, json.dumps(job))
    return process


def _line(process: subprocess.Popen[str]) -> str:
    """The next line; empty if the process has ended, in the middle of one or not."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return line.strip() if line.endswith("\n") else ""
