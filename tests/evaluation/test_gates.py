"""The gate: bars, missing figures and significance."""

from __future__ import annotations

import json

import pytest

from vnquant.evaluation.gates import decide
from vnquant.spec import GateSpec

GOOD = {"accuracy": 0.53, "rmse": 0.02, "edge_interval": {"majority": [0.001, 0.05]}}


def test_a_bar_must_be_cleared_not_only_reached() -> None:
    reached = decide({"accuracy": 0.52, "rmse": 0.03}, GateSpec())
    assert not reached.passed
    assert [c.passed for c in reached.checks] == [False, False]
    result = decide({"accuracy": 0.5201, "rmse": 0.0299}, GateSpec())
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
    result = decide(GOOD | change, GateSpec())
    assert not result.passed
    assert result.reason == reason


@pytest.mark.parametrize("interval", [[0.0, 0.05], [-0.01, 0.05], None])
def test_significance_is_demanded_only_on_request(interval: list[float] | None) -> None:
    pooled = GOOD | {"edge_interval": {"majority": interval}}
    assert decide(pooled, GateSpec()).passed
    strict = decide(pooled, GateSpec(require_significance=True))
    assert not strict.passed
    assert "edge over the majority class" in strict.reason
    assert decide(GOOD, GateSpec(require_significance=True)).passed
