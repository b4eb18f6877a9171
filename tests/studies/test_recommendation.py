"""The rule of a study's recommendation, from rows alone."""

from __future__ import annotations

from typing import Any

import pytest

from vnquant.studies.recommendation import recommend

FIRST = {"name": "a"}


def other(name: str, difference: float | None, p: float | None = 0.001) -> dict[str, Any]:
    return {"name": name, "against_first": {"difference": difference, "adjusted_p": p}}


def test_the_largest_gain_that_is_sure_is_recommended() -> None:
    rows = [FIRST, other("b", 0.01), other("c", 0.02), other("d", 0.09, p=0.2)]
    said = "Change to c: its RankIC is better by 0.0200 (adjusted p 0.001, 4 trials)."
    assert recommend("rank_ic", rows) == said
    assert recommend("rank_ic", rows, seed_noise=0.015) == said


def test_a_gain_within_the_noise_of_the_seed_changes_nothing() -> None:
    rows = [FIRST, other("b", 0.01), other("c", 0.02)]
    for noise in (0.02, 0.03):
        said = recommend("rank_ic", rows, seed_noise=noise)
        assert said.startswith("Keep a: c is the best, its RankIC is better by 0.0200 (adjusted p")
        assert said.endswith(f"but another seed alone changes it by {noise:.4f}.")


@pytest.mark.parametrize(
    ("p", "says"), [(0.05, "adjusted p 0.050"), (None, "too few dates for a p-value")]
)
def test_what_may_be_chance_changes_nothing(p: float | None, says: str) -> None:
    said = recommend("rank_ic", [FIRST, other("b", 0.01, p)], seed_noise=0.0)
    assert said.startswith("Keep a: b has the best RankIC, by 0.0100, which cannot be told from")
    assert says in said


def test_of_errors_the_lower_is_better() -> None:
    rows = [FIRST, other("b", -0.01), other("c", 0.02)]
    assert recommend("mse_sum", rows).startswith("Change to b: its squared error of the path is")
    assert recommend("mse_sum", [FIRST, rows[2]]).startswith("Keep a: no other has a better")


def test_what_failed_is_compared_with_nothing() -> None:
    bad = {"name": "b", "failed": "no symbol can be trained"}
    assert recommend("brier", [FIRST, bad]).startswith("Keep a: there is nothing to compare")
    assert recommend("brier", [FIRST, other("b", None)]).startswith("Keep a: there is nothing")
    said = recommend("brier", [{**bad, "name": "a"}, other("b", -0.1)])
    assert said == "Nothing to compare with: a failed (no symbol can be trained)."
