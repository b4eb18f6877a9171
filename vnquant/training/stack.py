"""A stack of models in training: its state, and one step of it.

Rules of stacking (docs/stacking.md): the loss is a mean inside a model and a sum across models;
gradients are clipped per model; a model that has stopped is frozen completely; each model counts
its own steps; every random number is a function of the model, never of the stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from vnquant.spec import ModelSpec, TrainingSpec
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.losses import per_model_loss, ranking_loss, split_outputs
from vnquant.stockformer.model import Drop, forward, sites
from vnquant.stockformer.randomness import drop_levels, generator, model_keys, site_keys
from vnquant.training.data import ModelId, TrainingData
from vnquant.training.graphs import StepGraphs
from vnquant.training.kernels import PLAIN_KERNELS, Kernels, round_widths
from vnquant.training.ledger import Ledger, Status
from vnquant.training.optimizer import Schedule
from vnquant.training.ranking import CrossSections

VALIDATION_WINDOWS = 64
"""Windows of each model in one forward pass of the validation."""


ROW_TENSORS = ("weights", "first", "second", "best")
Criterion = Literal["loss", "rank_ic"]


class Validation(NamedTuple):
    """What the validation windows say of every model, ``[M]`` each."""

    loss: torch.Tensor
    score: torch.Tensor
    """What slices are chosen by; lower is better."""


class Stack:
    """M models of one shape. Rows are ordered by falling steps per epoch.

    That order makes the models that still have work in a round a prefix of the stack, so short
    histories cost nothing: step ``i`` of a round computes only the first ``width(i)`` rows.

    Attributes:
        weights, first, second, best: float32 ``[M, P]``: parameters, AdamW moments, best slice.
        epoch: the round in progress; inner: steps of it already taken.
        loss_sum: float32 ``[M]``: training loss of the round so far.
        finite: bool ``[M]``: no loss or gradient was NaN or infinite yet.
    """

    def __init__(
        self,
        shape: Shape,
        models: Sequence[ModelId],
        model_spec: ModelSpec,
        training: TrainingSpec,
        data: TrainingData,
        kernels: Kernels = PLAIN_KERNELS,
        ranking_weight: float = 0.0,
        criterion: Criterion = "loss",
    ) -> None:
        batch = training.batch_size
        self.models = sorted(models, key=lambda m: (-data.steps_per_epoch(m.series, batch), m))
        self.shape, self.training, self.data = shape, training, data
        self.kernels, self.ranking_weight = kernels, ranking_weight
        self.criterion = criterion
        self.device = data.features.device
        self.epoch, self.inner = 0, 0
        self.ledger = [Ledger() for _ in self.models]
        rows = len(self.models)
        self.weights = torch.zeros(rows, shape.row, device=self.device)
        self.first = torch.zeros_like(self.weights)
        self.second = torch.zeros_like(self.weights)
        self.best = torch.zeros_like(self.weights)
        self._model_spec = model_spec
        self._schedule = Schedule(training.learning_rate, training.warmup_fraction)
        self._index()

    def _index(self) -> None:
        """Everything that follows from which models are in the stack."""
        device, batch = self.device, self.training.batch_size
        steps = [self.data.steps_per_epoch(m.series, batch) for m in self.models]
        self.steps = np.asarray(steps)
        self._steps = torch.tensor(steps, dtype=torch.int32, device=device)
        self._widths = round_widths(self.steps, self.kernels.widths)
        members = [m.member for m in self.models]
        symbols = [m.symbol for m in self.models]
        self._keys = model_keys(self.training.seed, symbols, members).to(device)
        rates = torch.tensor([self._model_spec.members[i].dropout for i in members])
        self._level = drop_levels(rates).to(device)
        self._decay = (self.shape.decayed * self.training.weight_decay).to(device)
        self._active = self._mark_active()
        self.loss_sum = torch.zeros(len(self.models), device=device)
        self.finite = torch.ones(len(self.models), dtype=torch.bool, device=device)
        self._batches: tuple[torch.Tensor, torch.Tensor] | None = None
        self._placed = False
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._round = torch.zeros(1, dtype=torch.int32, device=device)
        self._graphs = StepGraphs(self._step, enabled=self.kernels.graphs)
        # Fused kernels are built for one number of windows: no smaller last part.
        multiple = VALIDATION_WINDOWS if self.kernels.outputs else 1
        self._validation = self.data.validation_rows(self.models, multiple)
        self._sections: CrossSections | None = None
        if self.criterion == "rank_ic":
            rows, weight = self._validation
            assert self.data.section is not None
            section = self.data.section.of(rows)
            realised = self.data.targets[rows].sum(-1) * section.scale
            self._sections = CrossSections(realised, section.session, weight > 0)

    def initialise(self) -> None:
        """Give every model its own initial weights."""
        for i, m in enumerate(self.models):
            rng = generator(self.training.seed, m.symbol, m.member, "init")
            self.weights[i] = torch.from_numpy(self.shape.initial_row(rng)).to(self.device)
        self.best.copy_(self.weights)

    def start_from(self, rows: Sequence[torch.Tensor]) -> None:
        """Begin with weights that were trained before, float32 ``[P]`` for each model.

        They are the best slice until an epoch has a lower validation loss than theirs.
        """
        self.weights.copy_(torch.stack(list(rows)))
        self.best.copy_(self.weights)
        found = self.validate()
        for entry, loss, score in zip(
            self.ledger, found.loss.tolist(), found.score.tolist(), strict=True
        ):
            if math.isfinite(loss):
                entry.best_loss, entry.best_score = loss, score

    def finish(self) -> None:
        """Take no step more: every model that still goes on is complete as it is."""
        for entry in self.ledger:
            if entry.status == Status.ACTIVE:
                entry.status = Status.COMPLETE
        self._active.copy_(self._mark_active())

    @property
    def round_steps(self) -> int:
        """Steps in a round: those of the longest history."""
        return int(self.steps[0])

    def width(self, inner: int) -> int:
        """How many rows step ``inner`` computes; all with a batch left are among them."""
        return int(self._widths[inner])

    def train_step(self) -> None:
        """One step of every model that has one; nothing here waits for the device."""
        if not self._placed:
            self._place_batches()
        self._graphs(self.width(self.inner))
        self.inner += 1

    def _place_batches(self) -> None:
        """Put this epoch's batches and position where a captured step will look for them."""
        batches = self.data.epoch_batches(
            self.models,
            self.epoch,
            self.training.batch_size,
            self.training.seed,
            by_session=self.ranking_weight > 0,
        )
        if self._batches is None:
            self._batches = batches
        else:
            for old, new in zip(self._batches, batches, strict=True):
                old.copy_(new)
        self._at.fill_(self.inner)
        self._round.fill_(self.epoch)
        self._placed = True

    def _step(self, k: int) -> None:
        """The arithmetic of a step of the first ``k`` models; changes tensors in place only."""
        assert self._batches is not None
        rows, weight = (part[:k].index_select(1, self._at).squeeze(1) for part in self._batches)
        step = self._steps[:k] * self._round + self._at.int()
        total = self._steps[:k] * self.training.epochs
        drop = Drop(site_keys(self._keys[:k], step, sites(self.shape)), self._level[:k])
        x = self.data.windows(rows)
        target = self.data.targets[rows]

        def loss_of(raw: torch.Tensor) -> torch.Tensor:
            loss = self.kernels.loss(
                raw, target, weight, self.training.direction_weight, self.training.loss
            )
            if not self.ranking_weight:
                return loss
            assert self.data.section is not None
            ranked = ranking_loss(raw, target, weight, *self.data.section.of(rows))
            return loss + self.ranking_weight * ranked

        loss, gradient = self.gradient(self.weights[:k], x, drop, loss_of)
        sound = torch.isfinite(loss)
        moving = self._active[:k] & self.finite[:k] & sound & (self._steps[:k] > self._at)
        finite = self.kernels.update(
            self.weights[:k],
            self.first[:k],
            self.second[:k],
            gradient,
            step,
            self._schedule(step, total),
            self._decay,
            moving,
            self.training.clip_norm,
        )
        self.finite[:k] &= finite & sound
        self.loss_sum[:k] += torch.where(moving, loss, 0.0)
        self._at += 1

    def gradient(
        self,
        rows: torch.Tensor,
        x: torch.Tensor,
        drop: Drop,
        loss_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss ``[M]`` and gradient ``[M, P]`` of some rows for their windows."""
        if self.kernels.gradient is not None:
            return self.kernels.gradient(self.shape, rows, x, drop, loss_of)
        leaf = rows.detach().requires_grad_()
        loss = loss_of(forward(self.shape, leaf, x, drop, self.kernels.pieces))
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), gradient

    @torch.no_grad()
    def validate(self) -> Validation:
        """Mean validation loss of every model, and what its slices are chosen by."""
        rows, weight = self._validation
        total = torch.zeros(len(self.models), device=self.device)
        expected = []
        for begin in range(0, rows.shape[1], VALIDATION_WINDOWS):
            part = slice(begin, begin + VALIDATION_WINDOWS)
            x = self.data.windows(rows[:, part])
            raw = self._outputs(x)
            target, here = self.data.targets[rows[:, part]], weight[:, part]
            direction_weight, likelihood = self.training.direction_weight, self.training.loss
            loss = per_model_loss(raw, target, here, direction_weight, likelihood)
            total += loss * here.sum(1)
            if self._sections is not None:
                expected.append(split_outputs(raw).mu.sum(-1).float())
        total /= weight.sum(1).clamp(min=1.0)
        if self._sections is None:
            return Validation(total, total)
        assert self.data.section is not None
        ic = self._sections.rank_ic(torch.cat(expected, 1) * self.data.section.scale[rows])
        # Where no session has enough symbols there is no RankIC.
        return Validation(total, torch.where(torch.isfinite(ic), -ic, total.cpu()))

    def _outputs(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.kernels.outputs or forward
        return outputs(self.shape, self.weights, x)

    def end_round(self) -> None:
        """Validate, keep better slices, and decide who goes on."""
        validation = self.validate()
        trained = (self.loss_sum / self._steps).tolist()
        sound = (self.finite & torch.isfinite(validation.loss)).tolist()
        judged = zip(self.ledger, validation.loss.tolist(), validation.score.tolist(), strict=True)
        better = []
        for i, (entry, loss, score) in enumerate(judged):
            improved = False
            if entry.status == Status.ACTIVE:
                if sound[i]:
                    entry.history.append((trained[i], loss))
                    improved = entry.best_score is None or score < entry.best_score
                    if improved:
                        entry.best_loss, entry.best_score = loss, score
                    self._judge(entry, improved)
                else:
                    entry.status = Status.DIVERGED
            better.append(improved)
        chosen = torch.tensor(better, device=self.device).unsqueeze(1)
        torch.where(chosen, self.weights, self.best, out=self.best)
        self.epoch, self.inner, self._placed = self.epoch + 1, 0, False
        self.loss_sum.zero_()
        self._active.copy_(self._mark_active())

    def _mark_active(self) -> torch.Tensor:
        active = [e.status == Status.ACTIVE for e in self.ledger]
        return torch.tensor(active, dtype=torch.bool, device=self.device)

    def _judge(self, entry: Ledger, improved: bool) -> None:
        if improved:
            entry.best_epoch, entry.bad_epochs = self.epoch, 0
        else:
            entry.bad_epochs += 1
        patience = self.training.patience
        if patience is not None and entry.bad_epochs >= patience:
            entry.status = Status.STOPPED
        if self.epoch + 1 >= self.training.epochs:
            entry.status = Status.COMPLETE

    def resume_at(self, epoch: int, inner: int) -> None:
        """Continue from a restored position; the caller has filled the rows and the ledger."""
        self.epoch, self.inner, self._placed = epoch, inner, False
        self._active.copy_(self._mark_active())

    @property
    def active(self) -> int:
        return sum(e.status == Status.ACTIVE for e in self.ledger)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows. Only between rounds, where nothing is half done."""
        if not rows:
            self.models, self.ledger = [], []
            return
        index = torch.as_tensor(list(rows), device=self.device)
        for name in ROW_TENSORS:
            setattr(self, name, getattr(self, name)[index].clone())
        self.models = [self.models[i] for i in rows]
        self.ledger = [self.ledger[i] for i in rows]
        self._index()
