"""The gate: bars, missing figures and significance."""

from __future__ import annotations

import json

import pytest

from vnquant.evaluation.comparison import Difference
from vnquant.evaluation.gates import decide
from vnquant.spec import GateSpec

PLAIN = GateSpec(require_significance=False)
GOOD = {"accuracy": 0.53, "rmse": 0.02, "edge_interval": {"majority": [0.001, 0.05]}}


def test_a_bar_must_be_cleared_not_only_reached() -> None:
    reached = decide({"accuracy": 0.52, "rmse": 0.03}, PLAIN)
    assert not reached.passed
    assert [c.passed for c in reached.checks] == [False, False]
    result = decide({"accuracy": 0.5201, "rmse": 0.0299}, PLAIN)
    assert result.passed
    assert result.reason == "Passed: accuracy 0.5201 (bar 0.5200), rmse 0.0299 (bar 0.0300)."
    assert [c.name for c in result.checks] == ["accuracy", "rmse"]
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accuracy": 0.5199}, "Refused: accuracy 0.5199 is not above 0.5200."),
        ({"rmse": 0.031}, "Refused: rmse 0.0310 is not below 0.0300."),
        (
            {"accuracy": None, "rmse": 0.04},
            "Refused: accuracy is undefined and rmse 0.0400 is not below 0.0300.",
        ),
    ],
)
def test_a_missed_bar_is_named(change: dict[str, float | None], reason: str) -> None:
    result = decide(GOOD | change, PLAIN)
    assert not result.passed
    assert result.reason == reason


@pytest.mark.parametrize("interval", [[0.0, 0.05], [-0.01, 0.05], None])
def test_significance_can_be_waived(interval: list[float] | None) -> None:
    pooled = GOOD | {"edge_interval": {"majority": interval}}
    assert decide(pooled, PLAIN).passed
    strict = decide(pooled, GateSpec(require_significance=True))
    assert not strict.passed
    assert "edge over the majority class" in strict.reason
    assert decide(GOOD, GateSpec(require_significance=True)).passed


@pytest.mark.parametrize(
    ("book", "reason"),
    [
        ({"sharpe": 0.81, "max_drawdown": 0.09}, None),
        ({"sharpe": 0.8, "max_drawdown": 0.09}, "sharpe 0.8000 is not above 0.8000"),
        ({"sharpe": 1.0, "max_drawdown": 0.1}, "drawdown 0.1000 is not below 0.1000"),
        ({"sharpe": None, "max_drawdown": 0.0}, "sharpe is undefined"),
    ],
)
def test_the_book_decides_with_it(book: dict[str, float | None], reason: str | None) -> None:
    result = decide(GOOD, GateSpec(), book=book)
    assert result.passed is (reason is None)
    assert reason is None or reason in result.reason


@pytest.mark.parametrize(
    ("interval", "not_worse", "better"),
    [
        ([-0.02, -0.01], True, True),
        ([-0.02, 0.01], True, False),
        ([0.01, 0.02], False, False),
        (None, False, False),
    ],
)
def test_beside_the_deployed_set(
    interval: list[float] | None, not_worse: bool, better: bool
) -> None:
    rival = Difference(0.24, 0.25, -0.01, interval, None)
    for wanted, passes in (("not worse", not_worse), ("better", better), ("any", True)):
        result = decide(GOOD, GateSpec(against_deployed=wanted), rival=rival)
        assert result.passed is passes, wanted
        assert passes or "deployed set" in result.reason
