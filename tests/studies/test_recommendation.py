"""The rule of a study's recommendation, from rows alone."""

from __future__ import annotations

from typing import Any

import pytest

from vnquant.studies.definition import Study
from vnquant.studies.recommendation import recommend

FIRST = {"name": "a", "hours": 10.0}


def study(metric: str = "rank_ic", **more: Any) -> Study:
    content = {"name": "x", "question": "?", "metric": metric, "variants": [{"name": "a"}]}
    return Study.model_validate(content | more)


RANK_IC, BRIER, ERROR = study(), study("brier"), study("mse_sum")
CHEAPER = study(cheaper={"cost": "hours", "margin": 0.005})


def other(
    name: str,
    difference: float | None,
    p: float | None = 0.001,
    interval: tuple[float, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    against = {"difference": difference, "adjusted_p": p, "interval": interval}
    return {"name": name, "against_first": against, **more}


def test_the_largest_gain_that_is_sure_is_recommended() -> None:
    rows = [FIRST, other("b", 0.01), other("c", 0.02), other("d", 0.09, p=0.2)]
    said = "Change to c: its RankIC is better by 0.0200 (adjusted p 0.001, 4 trials)."
    assert recommend(RANK_IC, rows) == said
    assert recommend(RANK_IC, rows, seed_noise=0.015) == said


@pytest.mark.parametrize("noise", [0.02, 0.03])
def test_a_gain_within_the_noise_of_the_seed_changes_nothing(noise: float) -> None:
    said = recommend(RANK_IC, [FIRST, other("b", 0.01), other("c", 0.02)], seed_noise=noise)
    assert said.startswith("Keep a: c is the best, its RankIC is better by 0.0200 (adjusted p")
    assert said.endswith(f"but another seed alone changes it by {noise:.4f}.")


@pytest.mark.parametrize(
    ("p", "says"), [(0.05, "adjusted p 0.050"), (None, "too few dates for a p-value")]
)
def test_what_may_be_chance_changes_nothing(p: float | None, says: str) -> None:
    said = recommend(RANK_IC, [FIRST, other("b", 0.01, p)], seed_noise=0.0)
    assert said.startswith("Keep a: b is the best, its RankIC is better by 0.0100")
    assert said.endswith("which cannot be told from chance.")
    assert says in said


def test_of_errors_the_lower_is_better() -> None:
    rows = [FIRST, other("b", -0.01), other("c", 0.02)]
    assert recommend(ERROR, rows).startswith("Change to b: its squared error of the path is")
    assert recommend(ERROR, [FIRST, rows[2]]).startswith("Keep a: no other has a better")


def test_what_failed_is_compared_with_nothing() -> None:
    bad = {"name": "b", "failed": "no symbol can be trained"}
    assert recommend(BRIER, [FIRST, bad]).startswith("Keep a: there is nothing to compare")
    assert recommend(BRIER, [FIRST, other("b", None)]).startswith("Keep a: there is nothing")
    said = recommend(BRIER, [{**bad, "name": "a"}, other("b", -0.1)])
    assert said == "Nothing to compare with: a failed (no symbol can be trained)."


def test_what_is_cheaper_and_not_worse_is_recommended() -> None:
    rows = [
        FIRST,
        other("b", -0.001, 0.5, (-0.004, 0.002), hours=7.0),
        other("c", -0.001, 0.5, (-0.0049, 0.003), hours=5.0),
        other("d", 0.0, 0.5, (-0.006, 0.006), hours=1.0),
    ]
    assert recommend(CHEAPER, rows) == (
        "Change to c: cheaper (5.00 core-hours of training, not 10.00) and not worse by more than "
        "0.005 in RankIC (lower end of the interval -0.0049)."
    )
    assert recommend(RANK_IC, rows).startswith("Keep a"), "only where the study asks for it"


@pytest.mark.parametrize(
    "row",
    [
        other("b", -0.001, 0.5, (-0.005, 0.002), hours=5.0),
        other("b", -0.001, 0.5, (-0.004, 0.002), hours=8.1),
        other("b", -0.001, 0.5, None, hours=5.0),
        other("b", -0.001, 0.5, (-0.004, 0.002)),
    ],
    ids=["may be worse", "hardly cheaper", "too few dates", "no cost"],
)
def test_what_may_be_worse_or_is_hardly_cheaper_is_not(row: dict[str, Any]) -> None:
    assert recommend(CHEAPER, [FIRST, row]) == "Keep a: no other has a better RankIC."


def test_better_comes_before_cheaper_and_cheaper_before_noise() -> None:
    cheap = other("b", 0.001, 0.5, (-0.001, 0.003), hours=1.0)
    good = other("c", 0.02, 0.001, (0.01, 0.03), hours=20.0)
    assert recommend(CHEAPER, [FIRST, cheap, good]).startswith("Change to c: its RankIC is better")
    said = recommend(CHEAPER, [FIRST, cheap, good], seed_noise=0.05)
    assert said.startswith("Change to b: cheaper")


def test_the_worse_end_of_an_error_is_the_upper_one() -> None:
    seconds = study(
        "brier",
        cheaper={"cost": "forecast_seconds", "margin": 0.001},
        variants=[{"name": "a", "reading": "float32"}],
    )
    first = {"name": "a", "forecast_seconds": 4.0}
    good = other("b", 0.0005, 0.5, (-0.01, 0.0009), forecast_seconds=2.0)
    bad = other("b", 0.0005, 0.5, (-0.0005, 0.0011), forecast_seconds=2.0)
    assert recommend(seconds, [first, good]).startswith("Change to b: cheaper (2.00 seconds")
    assert recommend(seconds, [first, bad]).startswith("Keep a")
