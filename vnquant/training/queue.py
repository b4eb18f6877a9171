"""The queue of stacks that a run's workers share, kept in files so that any of them may be killed.

``plan.json`` lists units, models that share a stack, in the order in which they are begun. A worker
holds a unit by a file lock, which the kernel releases however the worker ends. What is finished is
not written here: a unit is open while any of its models has no result. So a unit of a worker that
was killed is taken up by the next one that looks, from its newest checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vnquant.stockformer.layout import Shape
from vnquant.training.data import ModelId
from vnquant.workspace import locked, read_json, write_json

Unit = list[ModelId]
POLL = 0.5
"""Seconds between looks at units that other workers hold."""
SHARES = 3
"""With several workers a unit is at most this part of a worker's share of what is left."""


def plan_units(
    models: Mapping[Shape, Sequence[ModelId]],
    steps: Callable[[ModelId], int],
    width: Callable[[Shape], int],
    workers: int = 1,
    equal: bool = False,
) -> list[Unit]:
    """Which models share a stack, and in what order stacks are begun.

    The most work first and, for several workers, ever smaller units: whoever is slow then holds
    little when the others run out of work.

    Args:
        steps: training steps that a model takes.
        width: how many models of a shape fit in one stack.
        equal: workers are equally fast (GPUs of one host), and every stack costs something
            whatever its width: the work is cut into equal parts, one for each worker, through as
            few stacks as can be.
    """
    left = sum(map(len, models.values()))
    total = sum(shape.row * steps(m) for shape in models for m in models[shape])
    done = 0
    units: list[tuple[int, Unit]] = []
    for shape in sorted(models, key=lambda s: s.layers * s.row, reverse=True):
        # Long histories together: a stack is as wide as its models are alike.
        order = sorted(models[shape], key=lambda m: (-steps(m), m))
        most = width(shape)
        hands: dict[int, Unit] = {}
        for model in order:
            # A model belongs to the worker in whose part of the work its middle lies.
            cost = shape.row * steps(model)
            worker = (2 * done + cost) * workers // (2 * total) if equal and total else 0
            hands.setdefault(worker, []).append(model)
            done += cost
        for hand in hands.values():
            while hand:
                share = most if equal or workers == 1 else -(-left // (SHARES * workers))
                size = max(1, min(most, share))
                unit, hand = hand[:size], hand[size:]
                left -= len(unit)
                units.append((shape.row * sum(map(steps, unit)), unit))
    return [unit for _, unit in sorted(units, key=lambda u: -u[0])]


class UnitQueue:
    """The units of one run.

    Args:
        folder: of the stage.
        snapshot: of the prices; a plan made for others is void.
        is_open: whether a model still has no result.
    """

    def __init__(self, folder: Path, snapshot: str, is_open: Callable[[ModelId], bool]) -> None:
        self.folder = folder
        self._snapshot = snapshot
        self._is_open = is_open

    def units(self) -> list[Unit]:
        """The planned units; empty if there is no plan for these prices."""
        known = read_json(self.folder / "plan.json")
        if not isinstance(known, dict) or known.get("snapshot") != self._snapshot:
            return []
        return [[ModelId(*m) for m in unit] for unit in known["units"]]

    def plan(self, make: Callable[[], list[Unit]], models: Sequence[ModelId]) -> list[Unit]:
        """The plan for these models: the one in force, so that a resumed run computes the same
        stacks, else a new one."""
        with self._alone():
            units = self.units()
            if {m for u in units for m in u} != set(models):
                units = make()
                self._write(units)
        return units

    def _write(self, units: Sequence[Unit]) -> None:
        write_json(self.folder / "plan.json", {"snapshot": self._snapshot, "units": units})

    @contextlib.contextmanager
    def claim(self, leave: Callable[[], bool] = lambda: False) -> Iterator[Unit | None]:
        """The open models of the first unit that nobody holds, held until the block ends.

        Waits while every open unit is held by others, who may die; None when all is finished, or
        when ``leave`` says so.
        """
        while not leave():
            waiting = False
            with self._alone(), contextlib.ExitStack() as locks:
                for unit in self.units():
                    left = [m for m in unit if self._is_open(m)]
                    if left and self._hold(locks, unit):
                        held = locks.pop_all()
                        break
                    waiting = waiting or bool(left)
                else:
                    held = None
            if held is not None:
                with held:
                    yield left
                return
            if not waiting:
                break
            time.sleep(POLL)
        yield None

    def narrow(self, mine: Unit, width: int) -> None:
        """Split my unit, and those that nobody holds, to at most ``width`` open models."""
        with self._alone(), contextlib.ExitStack() as locks:
            units: list[Unit] = []
            for unit in self.units():
                left = [m for m in unit if self._is_open(m)]
                if left and (left[0] in mine or self._hold(locks, unit)):
                    units += [left[i : i + width] for i in range(0, len(left), width)]
                    left = [m for m in unit if m not in left]  # those with a result, as a record
                    units += [left] if left else []
                else:
                    units.append(unit)
            self._write(units)

    def _hold(self, locks: contextlib.ExitStack, unit: Unit) -> bool:
        """Take a unit's lock; a unit is known by its first model."""
        path = self.folder / "claims" / f"{unit[0]}.lock"
        return locks.enter_context(locked(path, wait=False))

    def _alone(self) -> contextlib.AbstractContextManager[bool]:
        """Plans and claims are made by one worker at a time."""
        return locked(self.folder / "claims" / "plan.lock")
