"""Tests per symbol and pooled: who has skill is found, and nobody asked for is dropped."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from vnquant.evaluation.metrics import summarise
from vnquant.evaluation.statistics import SHARED, ic_by_date, statistics, verdicts
from vnquant.spec import EvaluationSpec, GateSpec

DAYS = 300
SPEC = EvaluationSpec(bootstrap_samples=100)


def forecasts(skill: dict[str, float], seed: int = 0) -> pd.DataFrame:
    """One-session forecasts that know the sign of the outcome with probability 0.5 + skill."""
    rng = np.random.default_rng(seed)
    parts = []
    for name, extra in skill.items():
        y = rng.normal(0, 0.02, DAYS)
        right = rng.random(DAYS) < 0.5 + extra
        said = np.where(right, np.sign(y), -np.sign(y))
        dates = pd.date_range("2022-01-03", periods=DAYS, freq="B")
        columns = {"mu_1": 0.01 * said, "sigma_1": 0.02, "p_up": 0.5 + 0.1 * said, "y_1": y}
        parts.append(pd.DataFrame({"symbol": name, "date": dates, **columns}))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return forecasts({"GOOD": 0.2, **{f"N{i}": 0.0 for i in range(9)}})


VENUES = {"GOOD": "HOSE", **{f"N{i}": "UPCOM" for i in range(9)}}


def test_the_one_with_skill_stands_out_after_adjustment(table: pd.DataFrame) -> None:
    judged = summarise(table, SPEC, 1, 0, VENUES)
    got = statistics(table, judged, VENUES)
    json.dumps(got, allow_nan=False)
    p = {s: v["adjusted_p_value"] for s, v in got["by_symbol"].items()}
    assert p["GOOD"] < 1e-4
    assert min(v for s, v in p.items() if s != "GOOD") > 0.05
    assert all(
        v["adjusted_p_value"] >= v["direction"]["p_value"] for v in got["by_symbol"].values()
    )
    assert got["by_exchange"]["HOSE"]["direction"]["p_value"] < 1e-4
    assert set(SHARED) < set(got["pooled"])


def test_every_symbol_asked_for_has_a_verdict_with_a_reason(table: pd.DataFrame) -> None:
    judged = summarise(table, SPEC, 1, 0, VENUES)
    tests = statistics(table, judged, VENUES)["by_symbol"]
    got = verdicts(
        ["AAA", "GOOD", "N0", "ZZZ"],
        judged["by_symbol"],
        tests,
        {"AAA": "member 0 diverged"},
        VENUES,
        GateSpec(),
        0.95,
    )
    assert [v["symbol"] for v in got] == ["AAA", "GOOD", "N0", "ZZZ"]
    assert [v["passed"] for v in got] == [False, True, False, False]
    assert got[0]["reason"] == "Not judged: member 0 diverged."
    assert "adjusted p-value" in got[2]["reason"]
    assert got[3] == {
        "symbol": "ZZZ",
        "exchange": None,
        "passed": False,
        "reason": "Not judged: no reason was recorded.",
    }


def test_ic_by_date_averages_to_the_pooled_one(table: pd.DataFrame) -> None:
    series = ic_by_date(table)
    assert list(series) == ["date", "ic", "rank_ic"]
    assert len(series) == DAYS
    pooled = summarise(table, SPEC, 1, 0, VENUES)["pooled"]
    assert series["rank_ic"].mean() == pytest.approx(pooled["rank_ic"])
    assert ic_by_date(table[table["symbol"] == "GOOD"])["ic"].isna().all()
