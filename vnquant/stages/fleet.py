"""The models of a run, as files: which are wanted, which are finished, which share a stack."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vnquant.features.windows import Scaler, Windows, fit_scaler, pooled_scalers
from vnquant.stages.context import Context
from vnquant.stockformer.layout import Shape
from vnquant.training.checkpoint import Checkpoints
from vnquant.training.data import POOL, ModelId, series
from vnquant.training.embedding import NO_EMBEDDING, Embedding, embedding_of
from vnquant.training.memory import choose_width
from vnquant.training.queue import Unit, UnitQueue, plan_units
from vnquant.training.stack import Criterion
from vnquant.workspace import read_json


def trainable(windows: Sequence[Windows], need: int) -> tuple[list[str], dict[str, str]]:
    """Symbols with at least ``need`` training windows, and why the others are not trained."""
    good, failed = [], {}
    for w in windows:
        if len(w.train) < need:
            failed[w.symbol] = f"{len(w.train)} training windows, fewer than {need}"
        elif not len(w.validation):
            failed[w.symbol] = "no validation window"
        else:
            good.append(w.symbol)
    return good, failed


class Fleet:
    """What every worker of a run shares. Nothing here is kept in memory only.

    Args:
        wanted: every model that the run is to have: of symbols, or the pooled ones (`POOL`).
        stage: whose models they are: ``train``, or ``walk_forward`` with models of every fold.

    Attributes:
        pooled: these are the pooled models, in a folder of their own.
        pool: the fleet of pooled models that these start from, if the spec asks for any.
        training: how these models are trained.
        embedding: what these models are told of whose window they see.
        ranking_weight, criterion: of the loss that compares symbols, and what the kept epoch is
            chosen by; only the pooled models can be told apart from symbol to symbol.
    """

    def __init__(self, ctx: Context, wanted: Sequence[ModelId], stage: str = "train") -> None:
        self.ctx = ctx
        self.wanted = tuple(wanted)
        self.stage = stage
        self.folds = {0: ctx.windows} if stage == "train" else ctx.folds
        self.pooled = all(m.symbol == POOL for m in self.wanted)
        self.folder = ctx.stage(stage).path / ("pretrain" if self.pooled else "")
        self.pool, self.training, self.ranking_weight = None, ctx.spec.training, 0.0
        self.criterion: Criterion = "loss"
        self.embedding: Embedding = NO_EMBEDDING
        if ctx.spec.pretrain is not None and self.pooled:
            self.training = ctx.spec.pretrain.applied_to(ctx.spec.training)
            self.ranking_weight = ctx.spec.pretrain.ranking_weight
            self.criterion = ctx.spec.pretrain.criterion
            self.embedding = embedding_of(ctx.spec, ctx.panel)
        elif ctx.spec.pretrain is not None:
            self.pool = Fleet(ctx, pooled_models(self.wanted), stage)
        self.snapshot: str = ctx.marker("ingest")["snapshot"]
        self.queue = UnitQueue(self.folder, self.snapshot, lambda m: self.finished(m) is None)
        self._lengths = {
            series(w.symbol, fold): len(w.train) for fold, ws in self.folds.items() for w in ws
        }
        for fold, symbols in self.symbols.items() if self.pooled else ():
            own = (self._lengths[series(s, fold)] for s in symbols)
            self._lengths[series(POOL, fold)] = sum(own)
        self._starts: dict[ModelId, str] = {}

    @property
    def trains(self) -> bool:
        """False where the pooled weights are handed out as they are."""
        pretrain = self.ctx.spec.pretrain
        return self.pooled or pretrain is None or pretrain.fine_tune

    @cached_property
    def symbols(self) -> dict[int, list[str]]:
        """The symbols that can be trained in each fold; their windows are what is pooled."""
        need = self.ctx.spec.training.min_train_windows
        return {fold: trainable(windows, need)[0] for fold, windows in self.folds.items()}

    @cached_property
    def scalers(self) -> dict[str, Scaler]:
        """The scale of every series that has a training window, as the models know it."""
        panel, lookback = self.ctx.panel, self.ctx.spec.windows.lookback
        pretrain, found = self.ctx.spec.pretrain, dict[str, Scaler]()
        for fold, windows in self.folds.items():
            own = {w.symbol: fit_scaler(panel, w, lookback) for w in windows if len(w.train)}
            if pretrain is not None and pretrain.scaling == "pooled":
                seen = set(self.symbols[fold])
                own = pooled_scalers(panel, [w for w in windows if w.symbol in seen], own)
            found |= {series(symbol, fold): scaler for symbol, scaler in own.items()}
        return found

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Of these models; first asked for when the pooled models are finished, if there are any.

        Weights of other prices, which may be named by the file alone, must not be resumed, nor
        such as started from other pooled weights.
        """
        digest = f"{self.ctx.spec.digest}/{self.snapshot}"
        if self.pool is not None:
            starts = "".join(str(self.start(m)) for m in pooled_models(self.wanted))
            digest += f"/{hashlib.sha256(starts.encode()).hexdigest()}"
        return Checkpoints(self.folder / "checkpoints", digest)

    def start(self, model: ModelId) -> str | None:
        """sha256 of the pooled weights that a model starts from; None while there are none."""
        if self.pool is None:
            return None
        pooled = model._replace(symbol=POOL)
        if pooled not in self._starts:
            found = (self.pool.finished(pooled) or {}).get("sha256")
            if found is None:
                return None
            self._starts[pooled] = found
        return self._starts[pooled]

    def models_of(self, fold: int) -> Path:
        """The folder of a fold's model files."""
        return self.folder / "models" / (f"fold-{fold}" if fold else "")

    def path(self, model: ModelId) -> Path:
        return self.models_of(model.fold) / f"{model.symbol}.m{model.member}.safetensors"

    def finished(self, model: ModelId) -> dict[str, Any] | None:
        """The model's metadata if it is complete (or known to diverge) for this spec and data."""
        meta = read_json(self.path(model).with_suffix(".json"))
        same = isinstance(meta, dict) and meta.get("spec_digest") == self.ctx.spec.digest
        if not same or meta.get("snapshot") != self.snapshot:
            return None
        return meta if meta.get("pretrained") == self.start(model) else None

    def steps_left(self, model: ModelId, epoch: int = 0) -> int:
        """Training steps of a model from the beginning of an epoch on."""
        per_epoch = -(-self._lengths[model.series] // self.training.batch_size)
        return per_epoch * (self.training.epochs - epoch)

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
            features=self.ctx.panel.features.shape[1] + len(self.embedding.values),
            lookback=self.ctx.spec.windows.lookback,
            horizon=self.ctx.spec.windows.horizon,
            half_life=self.ctx.spec.windows.half_life,
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
            profile, batch = self.ctx.profile, self.training.batch_size
            return self.ctx.options.stack_width or choose_width(
                shape, batch, profile.torch_dtype, profile.torch_device, limit
            )

        units = self.queue.plan(make, self.wanted)
        widths = sorted({len(u) for u in units}, reverse=True)
        self.ctx.events.emit("stacks", count=len(units), widths=widths)


def pooled_models(wanted: Iterable[ModelId]) -> list[ModelId]:
    """The pooled models that some models start from: one for each member and fold."""
    return sorted({m._replace(symbol=POOL) for m in wanted})
