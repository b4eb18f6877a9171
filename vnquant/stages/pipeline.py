"""Order, prerequisites, timing and provenance of stages."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

from vnquant import manifest
from vnquant.accelerators import affinity
from vnquant.errors import PartialFailure
from vnquant.stages import kernels
from vnquant.stages.context import Context

NEEDS: dict[str, tuple[str, ...]] = {
    "ingest": (),
    "features": ("ingest",),
    "train": ("features",),
    "evaluate": ("train",),
    "backtest": ("evaluate",),
    "optimize": ("train",),
    "deploy": ("backtest",),
    "forecast": ("train",),
    # Shows whatever else there is, and says what is not.
    "report": ("evaluate",),
    "walk_forward": ("features",),
}
STAGES = tuple(NEEDS)
ALL = tuple(s for s in STAGES if s != "walk_forward")
"""What ``all`` means: a walk-forward is a study of its own, with folds that few specs have."""

_TRAIN = frozenset({"train", "walk_forward"})


class StageModule(Protocol):
    """What a module of this package offers."""

    def run(self, ctx: Context) -> dict[str, Any]:
        """Do the work, write the results, and return the marker's content.

        A ``failed`` mapping of symbol to reason in it makes the run end with exit code 4.
        """
        ...

    def is_current(self, ctx: Context, marker: dict[str, Any]) -> bool:
        """Whether a finished stage may be skipped."""
        ...


def _module(name: str) -> StageModule:
    # Imported on demand, so that `run ingest` does not pay for torch.
    return cast(StageModule, importlib.import_module(f"vnquant.stages.{name}"))


def run_stage(ctx: Context, name: str) -> dict[str, Any]:
    """Run one stage, after whatever it needs that has not finished; returns its marker."""
    for needed in NEEDS[name]:
        run_stage(ctx, needed)
    module, stage = _module(name), ctx.stage(name)
    marker = stage.done()
    if marker is not None and module.is_current(ctx, marker):
        if name not in ctx.current:
            ctx.events.emit("stage_skipped", stage=name, reason="already finished")
            ctx.current.add(name)
        return marker
    ctx.events.emit("stage_started", stage=name, run=ctx.run.spec.run_id)
    began = time.perf_counter()
    stage.reopen()
    affinity.bind_for(name, ctx.options.cores)
    content = module.run(ctx)
    seconds = time.perf_counter() - began
    provenance = content.pop("provenance", {})
    # Provenance first: a marker must never exist without it.
    manifest.record(ctx.run, name, seconds=round(seconds, 3), **provenance)
    stage.finish(**content)
    ctx.current.add(name)
    ctx.events.emit("stage_finished", stage=name, seconds=round(seconds, 3))
    return content


def _needed(name: str) -> set[str]:
    """Every stage that a stage builds on."""
    return {n for needed in NEEDS[name] for n in {needed, *_needed(needed)}}


def run_stages(ctx: Context, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run several stages in order; symbols that fail do not stop the others.

    Raises:
        PartialFailure: every stage finished, but some symbols failed on the way.
    """
    trains = _TRAIN & set(names).union(*map(_needed, names))
    if any(ctx.stage(name).done() is None for name in trains):
        ctx.precompiling = kernels.start(ctx)
    try:
        markers = {name: run_stage(ctx, name) for name in names}
    finally:
        if ctx.precompiling is not None:
            ctx.precompiling.stop()
    failed: dict[str, str] = {}
    for stage in STAGES:
        failed |= (ctx.stage(stage).done() or {}).get("failed") or {}
    if failed:
        listed = "; ".join(f"{s}: {why}" for s, why in sorted(failed.items())[:5])
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise PartialFailure(
            f"finished, but {len(failed)} of {len(ctx.spec.symbols)} symbols failed "
            f"({listed}{more})",
            where=f"run {ctx.spec.run_id}",
            fix="see the quality report and events of the run",
        )
    return markers
