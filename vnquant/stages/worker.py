"""One process's part in training a fleet: claim a unit, train it as a stack, claim the next."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from vnquant.errors import Stopped
from vnquant.stages.context import Context
from vnquant.stages.fleet import Fleet
from vnquant.stockformer.files import MAX_BYTES, ModelFile, load_model, save_model
from vnquant.stockformer.layout import Shape
from vnquant.training.checkpoint import group_by_position
from vnquant.training.data import POOL, ModelId, TrainingData
from vnquant.training.kernels import PLAIN_KERNELS, Kernels, choose_kernels
from vnquant.training.ledger import Status
from vnquant.training.memory import MemoryMonitor, NarrowStack, is_out_of_memory, release_memory
from vnquant.training.queue import Unit
from vnquant.training.stack import Stack
from vnquant.training.trainer import train_stack
from vnquant.training.watch import Watch
from vnquant.workspace import write_json

Advance = Callable[[int, str], None]
WRITERS = 8


def open_watch(ctx: Context, limit: int) -> Watch:
    """What may interrupt a worker that may use ``limit`` bytes of host memory."""
    return Watch(
        MemoryMonitor(ctx.events.emit, limit),
        checkpoint_seconds=ctx.options.checkpoint_minutes * 60,
        checkpoint_epochs=ctx.options.checkpoint_epochs,
    )


class Worker:
    """Trains units of a fleet until none is left.

    Args:
        watch: what may interrupt it between two steps.
        advance: told how many model steps are done since it began (restored ones count), with a
            note on where it stands.
    """

    def __init__(self, fleet: Fleet, watch: Watch, advance: Advance) -> None:
        self.fleet, self.watch = fleet, watch
        self._advance = advance
        self.done = 0
        self.busy = 0.0
        """Seconds in which a unit was held: the rest of the time was spent waiting."""
        self._kernels: dict[Shape, Kernels] = {}
        ctx = fleet.ctx
        self._data = TrainingData.build(
            ctx.panel,
            fleet.folds,
            fleet.scalers,
            ctx.spec.windows.lookback,
            ctx.profile.torch_device,
            ctx.profile.torch_dtype,
            fleet.embedding,
            ctx.spec.windows.half_life,
        )
        if fleet.pooled:
            self._data = self._data.pooled(fleet.symbols)
        self._pooled: dict[ModelId, ModelFile] = {}

    def work(self) -> int:
        """Train until every model of the fleet is finished; returns the units trained here.

        Raises:
            Stopped: a signal came; a checkpoint was saved.
        """
        trained, fleet = 0, self.fleet
        while True:
            with fleet.queue.claim(lambda: self.watch.signum is not None) as unit:
                if unit is None:
                    break
                before, began = self.done, time.perf_counter()
                narrow = self._attempt(unit)
                self.busy += time.perf_counter() - began
                if narrow:
                    # Not in the except block: its traceback keeps the old stack's tensors alive.
                    self.done = before
                    fleet.queue.narrow(unit, narrow)
                    fleet.ctx.events.emit("narrowed", width=narrow)
                    release_memory()
                    continue
            trained += 1
            fleet.checkpoints.prune(m for m in fleet.wanted if fleet.finished(m))
        if self.watch.signum is not None:
            raise Stopped(
                "stopped by a signal between two stacks",
                fix="run the same command again to continue",
                signum=self.watch.signum,
            )
        fleet.checkpoints.prune(fleet.wanted)
        return trained

    def _attempt(self, unit: Unit) -> int:
        """Train a unit; returns 0, or the width to try instead."""
        try:
            self._train(unit)
        except (NarrowStack, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_out_of_memory(error):
                raise
            if len(unit) == 1:
                raise
            return max(1, len(unit) // 2)
        return 0

    def _train(self, unit: Unit) -> None:
        fleet, spec = self.fleet, self.fleet.ctx.spec
        shape = fleet.shape(unit[0])
        places = fleet.checkpoints.places()
        for (epoch, inner, compacting), models in group_by_position(unit, places).items():
            kernels = self._kernels_for(shape)
            stack = Stack(
                shape,
                models,
                spec.model,
                fleet.training,
                self._data,
                kernels,
                fleet.ranking_weight,
                fleet.criterion,
            )
            if all(m in places for m in models):
                fleet.checkpoints.restore(stack, places)
                fleet.ctx.events.emit("resumed", epoch=epoch, inner=inner, models=len(models))
                self.done += sum(fleet.steps_left(m) - fleet.steps_left(m, epoch) for m in models)
            elif fleet.pool is None:
                stack.initialise()
            else:
                stack.start_from([self._pooled_row(fleet.pool, m) for m in stack.models])
                if not fleet.trains:
                    stack.finish()
                    compacting = True  # nothing is left but to export them

            def advance(steps: int, stack: Stack = stack) -> None:
                self.done += steps
                self._advance(self.done, f"epoch {stack.epoch + 1}/{fleet.training.epochs}")

            train_stack(
                stack,
                checkpoints=fleet.checkpoints,
                watch=self.watch,
                export=self._export,
                events=fleet.ctx.events,
                advance=advance,
                compacting=compacting,
            )

    def _pooled_row(self, pool: Fleet, model: ModelId) -> torch.Tensor:
        """The pooled weights of a model's member and fold, float32 ``[P]``."""
        pooled = model._replace(symbol=POOL)
        if pooled not in self._pooled:
            self._pooled[pooled] = load_model(pool.path(pooled))
        found = self._pooled[pooled]
        return pool.embedding.folded(found.shape, found.row, model.symbol)

    def _kernels_for(self, shape: Shape) -> Kernels:
        profile = self.fleet.ctx.profile
        if not profile.compile:
            return PLAIN_KERNELS
        if shape not in self._kernels:
            found = choose_kernels(shape, profile.torch_device, profile.torch_dtype)
            self._kernels[shape] = found
            if found is PLAIN_KERNELS:
                self.fleet.ctx.events.emit(
                    "plain_kernels",
                    reason="there is no C compiler here, and no ready-made modules for these sizes",
                )
        return self._kernels[shape]

    def _export(self, stack: Stack, rows: Sequence[int]) -> None:
        """Write finished models; a diverged one leaves only its metadata."""
        fleet, best = self.fleet, stack.best[list(rows)].cpu()

        def write(i: int, row: torch.Tensor) -> None:
            model, entry = stack.models[i], stack.ledger[i]
            meta = {
                "symbol": model.symbol,
                "member": model.member,
                "status": entry.status.name.lower(),
                "spec_digest": fleet.ctx.spec.digest,
                "snapshot": fleet.snapshot,
                "features": fleet.ctx.spec.features.name,
                "best_epoch": entry.best_epoch,
                "validation_loss": entry.best_loss,
                "epochs": len(entry.history),
                "history": entry.history,
            }
            if fleet.pooled:
                meta["symbols"] = fleet.symbols[model.fold]
                meta |= {"criterion": fleet.criterion, "best_score": entry.best_score}
            else:
                meta["scaler"] = fleet.scalers[model.series].to_dict()
            if start := fleet.start(model):
                meta["pretrained"] = start
            if model.fold:
                meta["fold"] = model.fold
            if entry.status == Status.DIVERGED:
                write_json(fleet.path(model).with_suffix(".json"), meta)
            else:
                # Weights to start from are kept exactly, whatever their size.
                limit = math.inf if fleet.pooled else MAX_BYTES
                save_model(fleet.path(model), stack.shape, row, meta, limit)

        # Side by side: most of it is waiting for the disk to say that a file is safe.
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, rows, best))
        # Epochs saved by stopping early are done as far as progress is concerned.
        self.done += sum(fleet.steps_left(stack.models[i], stack.epoch) for i in rows)
        names = [str(stack.models[i]) for i in rows]
        fleet.ctx.events.emit("models_finished", models=names)
