"""What became of a model in training, and how it got there."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Status(IntEnum):
    """What became of a model."""

    ACTIVE = 0
    STOPPED = 1
    """Validation did not improve for `patience` epochs; its best slice is kept."""
    DIVERGED = 2
    """A loss or gradient was not finite; frozen and reported, never fatal to the others."""
    COMPLETE = 3


@dataclass
class Ledger:
    """One model's record outside the tensors; plain numbers, so JSON keeps it."""

    status: Status = Status.ACTIVE
    best_loss: float | None = None
    best_score: float | None = None
    """What the kept slice was chosen by, lower is better: its loss, or its RankIC's negative."""
    best_epoch: int | None = None
    """None with a best loss: no epoch was better than the weights it started from."""
    bad_epochs: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)
    """(training loss, validation loss) of every epoch."""

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "status": int(self.status)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Ledger:
        history = [(float(a), float(b)) for a, b in value["history"]]
        # Before there was another criterion, slices were chosen by their loss.
        value = {"best_score": value["best_loss"], **value}
        return cls(**{**value, "status": Status(value["status"]), "history": history})
