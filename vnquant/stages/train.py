"""Stage train: every model of the run, a stack at a time, resumable at any point."""

from __future__ import annotations

import time
from typing import Any

from vnquant.accelerators import affinity
from vnquant.accelerators.topology import read
from vnquant.errors import DataError, UsageError
from vnquant.stages.context import Context
from vnquant.stages.fleet import Fleet
from vnquant.stages.teams import train_in_teams
from vnquant.stages.worker import Worker, open_watch
from vnquant.training.data import ModelId
from vnquant.training.memory import memory_limit


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return bool(marker.get("snapshot") == ctx.marker("ingest")["snapshot"])


def trainable(ctx: Context) -> tuple[list[str], dict[str, str]]:
    """Symbols with enough windows, and why the others have not.

    Raises:
        DataError: no symbol has.
    """
    need = ctx.spec.training.min_train_windows
    good, failed = [], {}
    for w in ctx.windows:
        if len(w.train) < need:
            failed[w.symbol] = f"{len(w.train)} training windows, fewer than {need}"
        elif not len(w.validation):
            failed[w.symbol] = "no validation window"
        else:
            good.append(w.symbol)
    if not good:
        raise DataError(
            f"no symbol can be trained ({_reasons(failed)})",
            where="windows",
            fix="give a longer history, or lower training.min_train_windows in the spec",
        )
    return good, failed


def run(ctx: Context) -> dict[str, Any]:
    symbols, failed = trainable(ctx)
    members = range(len(ctx.spec.model.members))
    fleet = Fleet(ctx, [ModelId(s, m) for s in symbols for m in members])
    profile, limit = ctx.profile, ctx.options.memory_limit or memory_limit()
    teams = _teams(ctx)
    workers = max(1, len(teams))
    ctx.events.emit("training", models=len(fleet.wanted), symbols=len(symbols), **profile.to_dict())
    began = time.perf_counter()
    fleet.plan(workers, limit // workers)
    watch = open_watch(ctx, limit)
    watch.memory.sample()
    _await_kernels(ctx)
    done, total = fleet.finished_steps, fleet.total_steps

    def advance(steps: int, note: str) -> None:
        ctx.events.progress("train", done + steps, total, note)

    reports = []
    with watch.listening():
        if teams:
            reports = train_in_teams(fleet, teams, watch, advance)
        else:
            Worker(fleet, watch, advance).work()
    for m in fleet.wanted:
        if (fleet.finished(m) or {}).get("status") == "diverged":
            failed[m.symbol] = f"member {m.member} diverged (loss or gradient not finite)"
    good = [s for s in symbols if s not in failed]
    if not good:
        raise DataError(
            f"every symbol failed ({_reasons(failed)})",
            where="train",
            fix="lower the learning rate",
        )
    watch.memory.sample()
    return {
        "snapshot": fleet.snapshot,
        "symbols": good,
        "models": len(good) * len(members),
        "failed": failed,
        "provenance": {
            **profile.to_dict(),
            "memory": watch.memory.to_dict(),
            "teams": reports,
            "training_seconds": round(time.perf_counter() - began, 3),
            "seed": ctx.spec.training.seed,
        },
    }


def _await_kernels(ctx: Context) -> None:
    """Several processes compile faster than this one would alone."""
    if ctx.precompiling is None:
        return
    began = time.perf_counter()
    wrong = ctx.precompiling.wait()
    waited = round(time.perf_counter() - began, 3)
    ctx.events.emit("precompiled", waited=waited, **({"failed": wrong} if wrong else {}))


def _teams(ctx: Context) -> list[affinity.Cpus]:
    """The processes to share the work among; none if this one does it all."""
    options = ctx.options
    if ctx.profile.device == "cuda":
        if (options.teams or 1) > 1:
            raise UsageError(
                "one process keeps a GPU busy", where="--teams", fix="leave it out, or --device cpu"
            )
        return []
    topology = read()
    kind = options.cores or ("p" if topology.hybrid else "all")
    return affinity.teams(topology, kind, options.teams, affinity.given())


def _reasons(failed: dict[str, str]) -> str:
    return "; ".join(f"{s}: {r}" for s, r in sorted(failed.items())[:5])
