"""The models of a run, as files: which are wanted, which are finished, which share a stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vnquant.stages.context import Context
from vnquant.stockformer.layout import Shape
from vnquant.training.checkpoint import Checkpoints
from vnquant.training.data import ModelId, series
from vnquant.training.memory import choose_width
from vnquant.training.queue import Unit, UnitQueue, plan_units
from vnquant.workspace import read_json


class Fleet:
    """What every worker of a run shares. Nothing here is kept in memory only.

    Args:
        wanted: every model that the run is to have.
        stage: whose models they are: ``train``, or ``walk_forward`` with models of every fold.
    """

    def __init__(self, ctx: Context, wanted: Sequence[ModelId], stage: str = "train") -> None:
        self.ctx = ctx
        self.wanted = tuple(wanted)
        self.stage = stage
        self.folds = {0: ctx.windows} if stage == "train" else ctx.folds
        self.folder = ctx.stage(stage).path
        self.snapshot: str = ctx.marker("ingest")["snapshot"]
        self.queue = UnitQueue(self.folder, self.snapshot, lambda m: self.finished(m) is None)
        # Prices may be named by the file alone: weights of other prices must not be resumed.
        digest = f"{ctx.spec.digest}/{self.snapshot}"
        self.checkpoints = Checkpoints(self.folder / "checkpoints", digest)
        self._lengths = {
            series(w.symbol, fold): len(w.train) for fold, ws in self.folds.items() for w in ws
        }

    def models_of(self, fold: int) -> Path:
        """The folder of a fold's model files."""
        return self.folder / "models" / (f"fold-{fold}" if fold else "")

    def path(self, model: ModelId) -> Path:
        return self.models_of(model.fold) / f"{model.symbol}.m{model.member}.safetensors"

    def finished(self, model: ModelId) -> dict[str, Any] | None:
        """The model's metadata if it is complete (or known to diverge) for this spec and data."""
        meta = read_json(self.path(model).with_suffix(".json"))
        same = isinstance(meta, dict) and meta.get("spec_digest") == self.ctx.spec.digest
        return meta if same and meta.get("snapshot") == self.snapshot else None

    def steps_left(self, model: ModelId, epoch: int = 0) -> int:
        """Training steps of a model from the beginning of an epoch on."""
        training = self.ctx.spec.training
        per_epoch = -(-self._lengths[model.series] // training.batch_size)
        return per_epoch * (training.epochs - epoch)

    @property
    def total_steps(self) -> int:
        return sum(map(self.steps_left, self.wanted))

    @property
    def finished_steps(self) -> int:
        return sum(self.steps_left(m) for m in self.wanted if self.finished(m))

    def shape(self, model: ModelId) -> Shape:
        return Shape.of(
            self.ctx.spec.model,
            model.member,
            features=self.ctx.panel.features.shape[1],
            lookback=self.ctx.spec.windows.lookback,
            horizon=self.ctx.spec.windows.horizon,
        )

    def plan(self, workers: int, limit: int, *, equal: bool = False) -> None:
        """Decide which models share a stack, unless that is decided already.

        Args:
            workers: processes that share the work.
            limit: bytes of host memory for each of them.
            equal: they are equally fast; see `plan_units`.
        """

        def make() -> list[Unit]:
            shapes: dict[Shape, list[ModelId]] = {}
            for m in self.wanted:
                shapes.setdefault(self.shape(m), []).append(m)
            return plan_units(shapes, self.steps_left, width, workers, equal)

        def width(shape: Shape) -> int:
            profile, batch = self.ctx.profile, self.ctx.spec.training.batch_size
            return self.ctx.options.stack_width or choose_width(
                shape, batch, profile.torch_dtype, profile.torch_device, limit
            )

        units = self.queue.plan(make, self.wanted)
        widths = sorted({len(u) for u in units}, reverse=True)
        self.ctx.events.emit("stacks", count=len(units), widths=widths)
