"""What must hold for every forecast table."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnquant.evaluation import metrics
from vnquant.evaluation.intervals import newey_west_se, resampled_sums
from vnquant.spec import EvaluationSpec

SPEC = EvaluationSpec(bootstrap_samples=100)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """One to seven symbols on up to 25 dates with holes, two sessions ahead; ties are common."""
    symbols, days = draw(st.integers(1, 7)), draw(st.integers(1, 25))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step = draw(st.sampled_from([0.0, 0.01, 0.001]))
    rows = [(s, d) for s in range(symbols) for d in range(days) if random.random() < 0.8]
    frame = pd.DataFrame(
        {
            "symbol": [f"S{s}" for s, _ in rows],
            "date": pd.to_datetime("2024-01-01") + pd.to_timedelta([d for _, d in rows], unit="D"),
        }
    )
    for i in (1, 2):
        frame[f"mu_{i}"] = step * random.integers(-2, 3, len(rows))
        frame[f"sigma_{i}"] = random.uniform(0.01, 0.03, len(rows))
        frame[f"y_{i}"] = step * random.integers(-2, 3, len(rows))
    frame["p_up"] = random.integers(0, 11, len(rows)) / 10
    return frame


def judged(table: pd.DataFrame) -> dict[str, dict]:
    venue = {s: "HOSE" if s < "S3" else "HNX" for s in sorted(set(table["symbol"]))}
    return metrics.summarise(table, SPEC, 2, 0, venue)


@settings(max_examples=60)
@given(tables())
def test_every_figure_is_json_and_within_its_bounds(table: pd.DataFrame) -> None:
    result = judged(table)
    json.dumps(result, allow_nan=False)
    parts = [result["pooled"], *result["by_symbol"].values(), *result["by_exchange"].values()]
    for part in parts:
        for name in ("accuracy", "base_rate", "majority", "flat", "ece", "brier", "coverage_80"):
            assert part[name] is None or 0 <= part[name] <= 1, name
        for name in ("ic", "rank_ic"):
            assert part[name] is None or abs(part[name]) <= 1 + 1e-9, name
        if part["n"]:
            assert part["majority"] >= max(part["base_rate"], 0.5) - 1e-12
            assert part["mae"] <= part["rmse"] + 1e-12
        if part["accuracy_interval"] is not None:
            low, high = part["accuracy_interval"]
            assert 0 <= low <= high <= 1
            assert all(0 < p <= 1 for p in part["edge_p_value"].values())


@settings(max_examples=40)
@given(tables())
def test_parts_add_up_to_the_whole(table: pd.DataFrame) -> None:
    result = judged(table)
    for split in ("by_symbol", "by_exchange"):
        parts = result[split].values()
        assert sum(p["n"] for p in parts) == result["pooled"]["n"] == len(table)
        for name in ("accuracy", "base_rate", "flat", "mae", "brier"):
            whole = sum(p["n"] * p[name] for p in parts)
            assert whole == pytest.approx(len(table) * (result["pooled"][name] or 0.0)), name


@settings(max_examples=40)
@given(tables(), st.floats(0.5, 2.0))
def test_rank_ic_looks_at_the_order_only(table: pd.DataFrame, scale: float) -> None:
    # A power of two and the sum of the same numbers: ties stay ties.
    factor = 2.0 ** round(scale)
    stretched = table.assign(mu_1=factor * table["mu_1"], mu_2=factor * table["mu_2"])
    before, after = metrics.point_metrics(table), metrics.point_metrics(stretched)
    for name in ("rank_ic", "ic"):
        assert (before[name] is None) == (after[name] is None)
        assert after[name] == pytest.approx(before[name])
    reverse = table.assign(mu_1=-table["mu_1"], mu_2=-table["mu_2"])
    flipped = metrics.point_metrics(reverse)["rank_ic"]
    assert flipped == pytest.approx(None if before["rank_ic"] is None else -before["rank_ic"])


@given(st.integers(6, 60), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_what_is_constant_does_not_vary_under_resampling(n: int, block: int, seed: int) -> None:
    totals = resampled_sums(np.full((n, 1), 0.5), block, 100, seed)
    assert (totals is None) == (n < 3 * block)
    if totals is not None:
        assert totals == pytest.approx(n / 2)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.integers(0, 6))
def test_newey_west_is_a_number_or_undefined(values: list[float], lag: int) -> None:
    error = newey_west_se(np.array(values), lag)
    assert (error is None) == (len(values) < lag + 2)
    assert error is None or (np.isfinite(error) and error >= 0)
