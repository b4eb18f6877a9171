"""Stage train: every model of the run, a stack at a time, resumable at any point."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vnquant.errors import DataError
from vnquant.features.windows import Scaler, fit_scaler
from vnquant.stages.context import Context
from vnquant.stockformer.files import save_model
from vnquant.stockformer.layout import Shape
from vnquant.training.checkpoint import Checkpoints, group_by_position
from vnquant.training.data import ModelId, TrainingData
from vnquant.training.kernels import PLAIN_KERNELS, Kernels, choose_kernels
from vnquant.training.memory import (
    MemoryMonitor,
    NarrowStack,
    choose_width,
    is_out_of_memory,
    memory_limit,
    release_memory,
)
from vnquant.training.stack import Stack, Status
from vnquant.training.trainer import Export, train_stack
from vnquant.training.watch import Watch
from vnquant.workspace import read_json, write_json


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return bool(marker.get("snapshot") == ctx.marker("ingest")["snapshot"])


@dataclass
class Fleet:
    """The models of a run: what trains them, and what is finished."""

    ctx: Context
    folder: Path
    data: TrainingData
    scalers: dict[str, Scaler]
    snapshot: str
    done_steps: int = 0
    total_steps: int = 0

    def path(self, model: ModelId) -> Path:
        return self.folder / "models" / f"{model}.safetensors"

    def finished(self, model: ModelId) -> dict[str, Any] | None:
        """The model's metadata if it is complete (or known to diverge) for this spec and data."""
        meta = read_json(self.path(model).with_suffix(".json"))
        same = isinstance(meta, dict) and meta.get("spec_digest") == self.ctx.spec.digest
        return meta if same and meta.get("snapshot") == self.snapshot else None

    def export(self, stack: Stack, rows: Sequence[int]) -> None:
        """Write finished models; a diverged one leaves only its metadata."""
        for i in rows:
            model, entry = stack.models[i], stack.ledger[i]
            meta = {
                "symbol": model.symbol,
                "member": model.member,
                "status": entry.status.name.lower(),
                "spec_digest": self.ctx.spec.digest,
                "snapshot": self.snapshot,
                "features": self.ctx.spec.features.name,
                "best_epoch": entry.best_epoch,
                "validation_loss": entry.best_loss,
                "epochs": len(entry.history),
                "history": entry.history,
                "scaler": self.scalers[model.symbol].to_dict(),
            }
            if entry.status == Status.DIVERGED:
                write_json(self.path(model).with_suffix(".json"), meta)
            else:
                save_model(self.path(model), stack.shape, stack.best[i], meta)
        self.ctx.events.emit("models_finished", models=[str(stack.models[i]) for i in rows])

    def advance(self, steps: int, note: str = "") -> None:
        self.done_steps += steps
        self.ctx.events.progress("train", self.done_steps, self.total_steps, note)

    def steps_left(self, model: ModelId, epoch: int = 0) -> int:
        training = self.ctx.spec.training
        per_epoch = self.data.steps_per_epoch(model.symbol, training.batch_size)
        return per_epoch * (training.epochs - epoch)


def _trainable(ctx: Context) -> tuple[list[str], dict[str, str]]:
    """Symbols with enough windows, and why the others have not."""
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
        why = "; ".join(f"{s}: {r}" for s, r in sorted(failed.items())[:5])
        raise DataError(
            f"no symbol can be trained ({why})",
            where="windows",
            fix="give a longer history, or lower training.min_train_windows in the spec",
        )
    return good, failed


def run(ctx: Context) -> dict[str, Any]:
    spec, profile = ctx.spec, ctx.profile
    symbols, failed = _trainable(ctx)
    every = {w.symbol: w for w in ctx.windows}
    scalers = {
        w.symbol: fit_scaler(ctx.panel, w, spec.windows.lookback)
        for w in ctx.windows
        if len(w.train)
    }
    identity = {s: scalers.get(s, next(iter(scalers.values()))) for s in every}
    data = TrainingData.build(
        ctx.panel,
        ctx.windows,
        [identity[s] for s in ctx.panel.symbols],
        spec.windows.lookback,
        profile.torch_device,
        profile.torch_dtype,
    )
    stage = ctx.stage("train")
    fleet = Fleet(ctx, stage.path, data, scalers, ctx.marker("ingest")["snapshot"])
    limit = ctx.options.memory_limit or memory_limit()
    monitor = MemoryMonitor(ctx.events.emit, limit)
    monitor.sample()
    watch = Watch(
        monitor,
        checkpoint_seconds=ctx.options.checkpoint_minutes * 60,
        checkpoint_epochs=ctx.options.checkpoint_epochs,
    )
    # Prices may be named by the file alone: weights of other prices must not be resumed.
    checkpoints = Checkpoints(stage / "checkpoints", f"{spec.digest}/{fleet.snapshot}")
    wanted = [ModelId(s, m) for s in symbols for m in range(len(spec.model.members))]
    fleet.total_steps = sum(fleet.steps_left(m) for m in wanted)
    fleet.done_steps = sum(fleet.steps_left(m) for m in wanted if fleet.finished(m))
    ctx.events.emit("training", models=len(wanted), symbols=len(symbols), **profile.to_dict())
    began = time.perf_counter()
    with watch.listening():
        for shape, models in _by_shape(ctx, wanted).items():
            kernels = PLAIN_KERNELS
            if profile.compile:
                kernels = choose_kernels(shape, profile.torch_device, profile.torch_dtype)
                if kernels is PLAIN_KERNELS:
                    ctx.events.emit("plain_kernels", reason="there is no C compiler here")
            _train_shape(fleet, shape, models, checkpoints, watch, kernels)
    for m in wanted:
        if (fleet.finished(m) or {}).get("status") == "diverged":
            failed[m.symbol] = f"member {m.member} diverged (loss or gradient not finite)"
    good = [s for s in symbols if s not in failed]
    if not good:
        why = "; ".join(f"{s}: {r}" for s, r in sorted(failed.items())[:5])
        raise DataError(
            f"every symbol failed ({why})", where="train", fix="lower the learning rate"
        )
    monitor.sample()
    return {
        "snapshot": fleet.snapshot,
        "symbols": good,
        "models": len(good) * len(spec.model.members),
        "failed": failed,
        "provenance": {
            **profile.to_dict(),
            "memory": monitor.to_dict(),
            "training_seconds": round(time.perf_counter() - began, 3),
            "seed": spec.training.seed,
        },
    }


def _by_shape(ctx: Context, wanted: Sequence[ModelId]) -> dict[Shape, list[ModelId]]:
    shapes: dict[Shape, list[ModelId]] = {}
    for m in wanted:
        shape = Shape.of(
            ctx.spec.model,
            m.member,
            features=ctx.panel.features.shape[1],
            lookback=ctx.spec.windows.lookback,
            horizon=ctx.spec.windows.horizon,
        )
        shapes.setdefault(shape, []).append(m)
    return shapes


def _plan(
    fleet: Fleet, shape: Shape, models: Sequence[ModelId], limit: int
) -> tuple[Path, list[list[ModelId]]]:
    """Which models share a stack. Written down, so that a resumed run computes the same stacks."""
    path = fleet.folder / f"plan-{shape.layers}x{shape.d_model}.json"
    known = read_json(path)
    if isinstance(known, dict) and known.get("snapshot") == fleet.snapshot:
        units = [[ModelId(s, int(m)) for s, m in unit] for unit in known["units"]]
        if {m for u in units for m in u} == set(models):
            return path, units
    ctx = fleet.ctx
    width = ctx.options.stack_width or choose_width(
        shape,
        ctx.spec.training.batch_size,
        ctx.profile.torch_dtype,
        ctx.profile.torch_device,
        limit,
    )
    # Long histories together: a stack is as wide as its models are alike.
    order = sorted(models, key=lambda m: (-fleet.steps_left(m), m))
    units = [order[i : i + width] for i in range(0, len(order), width)]
    _write_plan(fleet, path, units)
    return path, units


def _write_plan(fleet: Fleet, path: Path, units: Sequence[Sequence[ModelId]]) -> None:
    widths = sorted({len(u) for u in units}, reverse=True)
    write_json(path, {"snapshot": fleet.snapshot, "units": units, "widths": widths})
    fleet.ctx.events.emit("stacks", count=len(units), widths=widths)


def _train_shape(
    fleet: Fleet,
    shape: Shape,
    models: Sequence[ModelId],
    checkpoints: Checkpoints,
    watch: Watch,
    kernels: Kernels,
) -> None:
    """Train all models of one shape, narrowing the stacks when memory runs short."""
    path, units = _plan(fleet, shape, models, watch.memory.limit)
    while True:
        left = [[m for m in unit if fleet.finished(m) is None] for unit in units]
        unit = next((u for u in left if u), None)
        if unit is None:
            checkpoints.prune(models)
            return
        before = fleet.done_steps
        try:
            _train_unit(fleet, shape, unit, checkpoints, watch, kernels)
        except (NarrowStack, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            if len(unit) == 1:
                raise
            narrow = max(1, len(unit) // 2)
        else:
            checkpoints.prune(m for m in models if fleet.finished(m) is not None)
            continue
        # Outside the except block, whose traceback would keep the old stack's tensors alive.
        fleet.done_steps = before
        units = [u[i : i + narrow] for u in left if u for i in range(0, len(u), narrow)]
        fleet.ctx.events.emit("narrowed", width=narrow)
        _write_plan_keeping_finished(fleet, path, models, units)
        release_memory()


def _write_plan_keeping_finished(
    fleet: Fleet, path: Path, models: Sequence[ModelId], units: list[list[ModelId]]
) -> None:
    open_models = {m for u in units for m in u}
    finished = [m for m in models if m not in open_models]
    _write_plan(fleet, path, [*units, *([finished] if finished else [])])


def _train_unit(
    fleet: Fleet,
    shape: Shape,
    unit: Sequence[ModelId],
    checkpoints: Checkpoints,
    watch: Watch,
    kernels: Kernels,
) -> None:
    ctx = fleet.ctx
    places = checkpoints.places()
    for (epoch, inner, compacting), models in group_by_position(unit, places).items():
        stack = Stack(shape, models, ctx.spec.model, ctx.spec.training, fleet.data, kernels)
        if all(m in places for m in models):
            checkpoints.restore(stack, places)
            ctx.events.emit("resumed", epoch=epoch, inner=inner, models=len(models))
            fleet.done_steps += sum(
                fleet.steps_left(m) - fleet.steps_left(m, epoch) for m in models
            )
        else:
            stack.initialise()

        def advance(steps: int, stack: Stack = stack) -> None:
            fleet.advance(steps, f"epoch {stack.epoch + 1}/{ctx.spec.training.epochs}")

        train_stack(
            stack,
            checkpoints=checkpoints,
            watch=watch,
            export=_export_and_count(fleet),
            events=ctx.events,
            advance=advance,
            compacting=compacting,
        )


def _export_and_count(fleet: Fleet) -> Export:
    def export(stack: Stack, rows: Sequence[int]) -> None:
        fleet.export(stack, rows)
        # Epochs saved by stopping early are done as far as the progress bar is concerned.
        fleet.done_steps += sum(fleet.steps_left(stack.models[i], stack.epoch) for i in rows)

    return export
