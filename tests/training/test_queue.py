"""The shared queue: plans, claims by several processes, and what a killed worker leaves."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant.stockformer.layout import Shape
from vnquant.training import queue as queues
from vnquant.training.data import ModelId
from vnquant.training.queue import Unit, UnitQueue, plan_units

SHAPE = Shape(features=5, lookback=6, horizon=2, d_model=16, heads=2, d_ff=32, layers=1)
DEEPER = replace(SHAPE, layers=SHAPE.layers + 1)
ABC = [[ModelId("A", 0), ModelId("B", 0)], [ModelId("C", 0), ModelId("D", 0)]]
EVERY = [m for unit in ABC for m in unit]


def work(units: list[Unit], steps: dict[ModelId, int]) -> list[int]:
    return [sum(steps[m] for m in unit) for unit in units]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    width=st.integers(1, 16),
    workers=st.integers(1, 6),
    both=st.booleans(),
    equal=st.booleans(),
)
def test_a_plan_holds_every_model_once_and_shapes_apart(
    lengths: list[int], width: int, workers: int, both: bool, equal: bool
) -> None:
    steps = {ModelId(f"S{i}", m): n for i, n in enumerate(lengths) for m in range(1 + both)}
    shapes = {SHAPE: [m for m in steps if m.member == 0]}
    if both:
        shapes[DEEPER] = [m for m in steps if m.member == 1]
    units = plan_units(shapes, steps.__getitem__, lambda _: width, workers, equal)
    assert sorted(m for u in units for m in u) == sorted(steps)
    assert all(len({m.member for m in u}) == 1 for u in units)
    assert max(map(len, units)) <= width
    if not both:
        assert work(units, steps) == sorted(work(units, steps), reverse=True)


def test_one_worker_gets_whole_stacks_and_several_get_ever_smaller_ones() -> None:
    steps = {ModelId(f"S{i:03d}", 0): 40 for i in range(102)}
    alone = plan_units({SHAPE: list(steps)}, steps.__getitem__, lambda _: 16)
    assert [len(u) for u in alone] == [16] * 6 + [6]
    shared = [len(u) for u in plan_units({SHAPE: list(steps)}, steps.__getitem__, lambda _: 16, 2)]
    assert shared[0] == 16
    assert shared == sorted(shared, reverse=True)
    assert shared[-1] == 1


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_equal_workers_get_equal_work_in_as_few_stacks_as_can_be(workers: int) -> None:
    """Greedy workers are done at the same time, but for a model."""
    steps = {ModelId(f"S{i:03d}", m): 1000 + 10 * i for i in range(102) for m in range(3)}
    ladder = [replace(SHAPE, layers=n) for n in (4, 5, 6)]
    shapes = {s: [m for m in steps if m.member == i] for i, s in enumerate(ladder)}
    units = plan_units(shapes, steps.__getitem__, lambda _: 400, workers, equal=True)
    assert len(units) <= len(ladder) + workers - 1, "a cut inside a shape makes one stack more"
    assert sum(len(u) == 102 for u in units) == max(0, 4 - workers), "whole stacks stay whole"
    loads = [sum(ladder[m.member].row * steps[m] for m in unit) for unit in units]
    free = [0] * workers
    for load in loads:
        free[free.index(min(free))] += load
    assert max(free) - sum(free) / workers < max(ladder[2].row * n for n in steps.values())


def test_a_slow_worker_holds_up_nobody_for_long() -> None:
    """Greedy workers at speeds 1 and 0.6 are done within 5 % of the ideal, in exact arithmetic."""
    steps = {ModelId(f"S{i:03d}", m): 20 + i % 45 for i in range(102) for m in range(3)}
    units = plan_units({SHAPE: list(steps)}, steps.__getitem__, lambda _: 16, 2)
    free, speed = [0.0, 0.0], [1.0, 0.6]
    for load in work(units, steps):
        first = min((0, 1), key=free.__getitem__)
        free[first] += load / speed[first]
    assert max(free) <= 1.05 * sum(steps.values()) / sum(speed)


class Finished(set[ModelId]):
    def is_open(self, model: ModelId) -> bool:
        return model not in self


@pytest.fixture
def finished() -> Finished:
    return Finished()


@pytest.fixture
def units(tmp_path: Path, finished: Finished) -> UnitQueue:
    queue = UnitQueue(tmp_path, "prices", finished.is_open)
    queue.plan(lambda: ABC, EVERY)
    return queue


def test_a_plan_stays_until_prices_or_models_change(tmp_path: Path, units: UnitQueue) -> None:
    assert units.plan(list, EVERY) == ABC
    others = UnitQueue(tmp_path, "other prices", lambda _: True)
    assert others.units() == []
    assert units.plan(lambda: [[ModelId("A", 0)]], [ModelId("A", 0)]) == [[ModelId("A", 0)]]


def test_two_workers_never_hold_the_same_unit(units: UnitQueue, finished: Finished) -> None:
    with units.claim() as first, units.claim() as second:
        assert [first, second] == ABC
        finished.update(EVERY)
        with units.claim() as third:
            assert third is None


def test_what_is_finished_is_not_claimed_again(units: UnitQueue, finished: Finished) -> None:
    finished.update([ModelId("A", 0), ModelId("C", 0), ModelId("D", 0)])
    with units.claim() as left:
        assert left == [ModelId("B", 0)]


def test_a_claim_waits_for_what_others_hold_or_leaves(
    units: UnitQueue, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "POLL", 0.01)
    asked = threading.Event()

    def leave() -> bool:
        asked.set()
        return False

    taken: list[Unit | None] = []

    def wait() -> None:
        with units.claim(leave) as unit:
            taken.append(unit)

    with units.claim(), units.claim():
        with units.claim(lambda: True) as unit:
            assert unit is None
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert asked.wait(10)
        assert taken == []
    waiting.join(10)
    assert taken[0] in ABC


def test_the_unit_of_a_killed_worker_is_free_again(units: UnitQueue, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vnquant.training.queue import UnitQueue\n"
        "with UnitQueue(Path(sys.argv[1]), 'prices', lambda _: True).claim() as unit:\n"
        "    print(unit[0], flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline().strip() == "A.m0"
        with units.claim() as other:
            assert other == ABC[1]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with units.claim() as again:
        assert again == ABC[0]


def test_narrowing_leaves_alone_what_others_train(units: UnitQueue, finished: Finished) -> None:
    with units.claim() as mine, units.claim():
        assert mine is not None
        units.narrow(mine, 1)
        assert units.units() == [[ModelId("A", 0)], [ModelId("B", 0)], ABC[1]]
    with units.claim() as mine:
        assert mine == [ModelId("A", 0)]
        finished.add(ModelId("C", 0))
        units.narrow(mine, 1)
    single = [[ModelId(s, 0)] for s in "ABDC"]
    assert units.units() == single
