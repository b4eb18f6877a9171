"""How the seconds of an epoch are read from a run's events."""

from __future__ import annotations

import datetime as dt

import pytest

from benchmarks.gpus import epoch_seconds
from vnquant.events import Event


def told(begin: float, every: float, count: int, **more: int) -> list[Event]:
    zero = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return [
        {
            "event": "epoch",
            "epoch": 1 + i,
            "time": (zero + dt.timedelta(seconds=begin + i * every)).isoformat(),
            **more,
        }
        for i in range(count)
    ]


def test_stacks_add_up_and_teams_work_side_by_side() -> None:
    """What happens between two stacks (here: 50 s) is none of it."""
    alone = told(10, 2, 4) + told(68, 3, 4)
    assert epoch_seconds(alone) == pytest.approx(5)
    both = told(10, 2, 4, team=0) + told(11, 3, 4, team=1)
    assert epoch_seconds(sorted(both, key=lambda e: e["time"])) == pytest.approx(3)


def test_one_slow_epoch_does_not_count() -> None:
    late = told(0, 1, 6)
    for event in late[3:]:
        event["time"] = event["time"].replace("00:00:0", "00:01:0")
    assert epoch_seconds(late) == pytest.approx(1)
