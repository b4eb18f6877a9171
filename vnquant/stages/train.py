"""Stage train: every model of the run, a stack at a time, resumable at any point."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vnquant.accelerators import affinity
from vnquant.accelerators.topology import read
from vnquant.errors import DataError, UsageError
from vnquant.stages import layout
from vnquant.stages.calibrating import calibrate
from vnquant.stages.context import Context
from vnquant.stages.fleet import Fleet, trainable
from vnquant.stages.teams import Place, train_in_teams
from vnquant.stages.weighing import weigh
from vnquant.stages.worker import Worker, open_watch
from vnquant.training.data import ModelId
from vnquant.training.memory import memory_limit

MODELS_PER_GPU = 32
"""A second process takes seconds to open its GPU, in which the first trains some models."""


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return bool(marker.get("snapshot") == ctx.marker("ingest")["snapshot"])


def run(ctx: Context) -> dict[str, Any]:
    symbols, failed = trainable(ctx.windows, ctx.spec.training.min_train_windows)
    if not symbols:
        raise none_trainable(failed)
    members = range(len(ctx.spec.model.members))
    fleet = Fleet(ctx, [ModelId(s, m) for s in symbols for m in members])
    provenance = train_fleet(fleet)
    failed |= {m.symbol: diverged(m) for m in lost(fleet)}
    good = [s for s in symbols if s not in failed]
    if not good:
        raise none_left(failed)
    weigh(ctx, fleet.models_of(0), ctx.windows_of(good))
    calibrate(ctx, fleet.models_of(0), ctx.windows_of(good))
    return {
        "snapshot": fleet.snapshot,
        "symbols": good,
        "models": len(good) * len(members),
        "failed": failed,
        "provenance": provenance,
    }


def train_fleet(fleet: Fleet) -> dict[str, Any]:
    """Train what a fleet still lacks; returns how it was done, for the manifest.

    Raises:
        Stopped: a signal came; a checkpoint was saved.
        DataError: a pooled model, from which others should start, diverged.
    """
    pretraining = {} if fleet.pool is None else _pretrain(fleet.pool)
    ctx, wanted = fleet.ctx, fleet.wanted
    profile, limit = ctx.profile, ctx.options.memory_limit or memory_limit()
    teams = _teams(fleet, limit)
    workers = max(1, len(teams))
    symbols = len(set().union(*fleet.symbols.values()))
    about = {"models": len(wanted), "symbols": symbols, "pooled": fleet.pooled}
    ctx.events.emit("training", **about, **profile.to_dict())
    began = time.perf_counter()
    fleet.plan(workers, limit // workers, equal=profile.device == "cuda")
    watch = open_watch(ctx, limit)
    watch.memory.sample()
    done, total = fleet.finished_steps, fleet.total_steps

    def advance(steps: int, note: str) -> None:
        ctx.events.progress(fleet.stage, done + steps, total, note)

    reports, busy = [], 0.0
    with watch.listening():
        if teams:
            reports = train_in_teams(fleet, teams, watch, advance, lambda: _await_kernels(ctx))
            busy = max((team["busy_seconds"] for team in reports), default=0.0)
        else:
            _await_kernels(ctx)
            worker = Worker(fleet, watch, advance)
            worker.work()
            busy = worker.busy
    watch.memory.sample()
    return {
        **profile.to_dict(),
        "memory": watch.memory.to_dict(),
        "teams": reports,
        "training_seconds": round(time.perf_counter() - began, 3),
        "busy_seconds": round(busy, 3),
        "seed": ctx.spec.training.seed,
        **pretraining,
    }


def _pretrain(pool: Fleet) -> dict[str, Any]:
    """Train the pooled models; returns their provenance, with the digest of their weights."""
    provenance = train_fleet(pool)
    if gone := lost(pool):
        raise DataError(
            f"the pooled model of {diverged(gone[0])}",
            where=f"fold {gone[0].fold}" if gone[0].fold else "pretrain",
            fix="lower pretrain.learning_rate in the spec",
        )
    weights = {str(m): (pool.finished(m) or {}).get("sha256") for m in pool.wanted}
    return {"pretraining": {**provenance, "symbols": pool.symbols, "weights": weights}}


def _await_kernels(ctx: Context) -> None:
    """Several processes compile faster than this one would alone."""
    if ctx.precompiling is None:
        return
    began = time.perf_counter()
    wrong = ctx.precompiling.wait()
    waited = round(time.perf_counter() - began, 3)
    ctx.events.emit("precompiled", waited=waited, **({"failed": wrong} if wrong else {}))


def lost(fleet: Fleet) -> list[ModelId]:
    """Models of a trained fleet that diverged and left no weights."""
    return [m for m in fleet.wanted if (fleet.finished(m) or {}).get("status") == "diverged"]


def diverged(model: ModelId) -> str:
    return f"member {model.member} diverged (loss or gradient not finite)"


def none_trainable(failed: Mapping[str, str]) -> DataError:
    return DataError(
        f"no symbol can be trained ({_reasons(failed)})",
        where="windows",
        fix="give a longer history, or lower training.min_train_windows in the spec",
    )


def none_left(failed: Mapping[str, str]) -> DataError:
    return DataError(
        f"every symbol failed ({_reasons(failed)})", where="train", fix="lower the learning rate"
    )


def _teams(fleet: Fleet, limit: int) -> list[Place]:
    """The processes to share the work among; none if this one does it all."""
    if not fleet.trains:
        return []  # writing files is not worth starting a process
    ctx, options = fleet.ctx, fleet.ctx.options
    if ctx.profile.device == "cuda":
        from vnquant.accelerators.cuda import visible

        return share_gpus(visible(), affinity.given(), options.teams, len(fleet.wanted))
    topology = read()
    found = layout.choose(fleet, topology, limit) if options.teams is None else None
    if found is None:
        kind = options.cores or ("p" if topology.hybrid else "all")
        found = affinity.teams(topology, kind, options.teams, affinity.given())
    return [Place(cpus) for cpus in found]


def share_gpus(
    gpus: Sequence[str], cpus: Collection[int], count: int | None, models: int
) -> list[Place]:
    """A team for each GPU, with an equal part of the CPUs; empty if one process should do it all.

    Args:
        count: how many GPUs to use; None: all, if each gets enough models to be worth its start.

    Raises:
        UsageError: more than there are.
    """
    if (count or 1) > len(gpus):
        raise UsageError(
            f"{count} teams need {count} GPUs, and {len(gpus)} can be seen (one process keeps a"
            " GPU busy)",
            where="--teams",
            fix="give fewer, or --device cpu",
        )
    count = count or max(1, min(len(gpus), models // MODELS_PER_GPU))
    if count == 1:
        return []
    ordered, size = sorted(cpus), max(1, len(cpus) // count)
    return [
        Place(tuple(ordered[i * size % len(ordered) :][:size]), gpu)
        for i, gpu in enumerate(gpus[:count])
    ]


def _reasons(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{s}: {r}" for s, r in sorted(failed.items())[:5])
