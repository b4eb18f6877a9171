"""The best interval is where the overhead is least."""

from __future__ import annotations

import pytest

from benchmarks.checkpoints import daly, overhead, young
from benchmarks.record import median_ratio


@pytest.mark.parametrize("between", [5400.0, 43200.0])
@pytest.mark.parametrize("cost", [0.5, 10.0])
def test_no_interval_beats_youngs(cost: float, between: float) -> None:
    best = overhead(young(cost, between), cost, between)
    assert all(overhead(t, cost, between) >= best for t in range(10, 7200, 10))
    # At the optimum both parts cost the same.
    assert best == pytest.approx(2 * cost / young(cost, between))


def test_dalys_interval_by_hand() -> None:
    # Cost 8, loss every 100: sqrt(1600) = 40, share sqrt(8 / 200) = 0.2.
    assert daly(8.0, 100.0) == pytest.approx(40 * (1 + 0.2 / 3 + 0.04 / 9) - 8)
    assert daly(300.0, 100.0) == 100.0


def test_ratios_are_taken_within_a_round() -> None:
    # The second round was twice as slow for both: the ratio is 2 all the same.
    assert median_ratio([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]) == 2.0
