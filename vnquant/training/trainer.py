"""The loop over rounds of one stack, with everything that may interrupt it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from vnquant.errors import Stopped
from vnquant.events import Events
from vnquant.training.checkpoint import Checkpoints
from vnquant.training.ledger import Status
from vnquant.training.memory import NarrowStack
from vnquant.training.stack import Stack
from vnquant.training.watch import Watch

COMPACT_AT = 0.75


class Export(Protocol):
    """Called with rows of a stack that will not change any more."""

    def __call__(self, stack: Stack, rows: Sequence[int]) -> None: ...


def finished_rows(stack: Stack) -> list[int]:
    return [i for i, e in enumerate(stack.ledger) if e.status != Status.ACTIVE]


def train_stack(
    stack: Stack,
    *,
    checkpoints: Checkpoints,
    watch: Watch,
    export: Export,
    events: Events,
    advance: Callable[[int], None],
    compacting: bool = False,
) -> None:
    """Train until every model of the stack is exported.

    Args:
        advance: told after every step how many model steps were taken.
        compacting: the stack was restored from a checkpoint that was written to compact it.

    Raises:
        Stopped: a signal came; a checkpoint was saved.
        NarrowStack: memory ran short; a checkpoint was saved.
    """
    if compacting:
        _compact(stack, export)
    while stack.models:
        while stack.inner < stack.round_steps:
            # The width may be rounded up; what counts is who still has a batch.
            taken = int((stack.steps > stack.inner).sum())
            stack.train_step()
            advance(taken)
            _between_steps(stack, checkpoints, watch, events)
        stack.end_round()
        _report(stack, events)
        if stack.active <= COMPACT_AT * len(stack.models):
            # The checkpoint before the export is what makes a kill between the two harmless:
            # the resumed stack has the same rows, hence the same arithmetic.
            checkpoints.save(stack, compacting=True)
            watch.saved()
            _compact(stack, export)
        elif watch.epoch_checkpoint_due(stack.epoch):
            _save(stack, checkpoints, watch, events)


def _between_steps(stack: Stack, checkpoints: Checkpoints, watch: Watch, events: Events) -> None:
    if watch.signum is not None:
        _save(stack, checkpoints, watch, events)
        raise Stopped(
            f"stopped by a signal in epoch {stack.epoch + 1}; a checkpoint is saved",
            fix="run the same command again to continue",
            signum=watch.signum,
        )
    if watch.checkpoint_due():
        _save(stack, checkpoints, watch, events)
    try:
        watch.check_memory(can_narrow=len(stack.models) > 1)
    except NarrowStack:
        _save(stack, checkpoints, watch, events)
        raise


def _save(stack: Stack, checkpoints: Checkpoints, watch: Watch, events: Events) -> None:
    path = checkpoints.save(stack)
    watch.saved()
    events.emit("checkpoint", file=path.name, epoch=stack.epoch, inner=stack.inner)


def _compact(stack: Stack, export: Export) -> None:
    rows = finished_rows(stack)
    export(stack, rows)
    leaving = set(rows)
    stack.keep([i for i in range(len(stack.models)) if i not in leaving])


def _report(stack: Stack, events: Events) -> None:
    latest = [e.history[-1] for e in stack.ledger if e.history]
    events.emit(
        "epoch",
        epoch=stack.epoch,
        models=len(stack.models),
        active=stack.active,
        train_loss=round(sum(t for t, _ in latest) / max(len(latest), 1), 5),
        validation_loss=round(sum(v for _, v in latest) / max(len(latest), 1), 5),
    )
    for m, e in zip(stack.models, stack.ledger, strict=True):
        if e.status == Status.DIVERGED and len(e.history) == stack.epoch - 1:
            events.emit("diverged", symbol=m.series, member=m.member, epoch=stack.epoch)
