"""Metrics against numbers worked by hand."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vnquant.errors import DataError
from vnquant.evaluation import metrics
from vnquant.spec import EvaluationSpec

SPEC = EvaluationSpec(bootstrap_samples=200)


def table(
    symbols: list[str], dates: list[str], mu: Any, y: Any, *, sigma: float = 0.01, p_up: Any = None
) -> pd.DataFrame:
    mu, y = np.atleast_2d(mu), np.atleast_2d(y)
    columns: dict[str, Any] = {
        "symbol": symbols,
        "date": pd.to_datetime(dates),
        "close": np.full(len(symbols), 20.0),
    }
    for i in range(mu.shape[1]):
        columns |= {f"mu_{i + 1}": mu[:, i], f"sigma_{i + 1}": sigma, f"y_{i + 1}": y[:, i]}
    columns["p_up"] = np.where(mu.sum(axis=1) > 0, 0.6, 0.4) if p_up is None else p_up
    return pd.DataFrame(columns)


def noise(symbols: int, days: int, horizon: int = 5, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    names = [f"S{i:03d}" for i in range(symbols) for _ in range(days)]
    dates = list(pd.bdate_range("2024-01-01", periods=days).astype(str)) * symbols
    shape = (symbols * days, horizon)
    return table(names, dates, random.normal(0, 0.01, shape), random.normal(0, 0.02, shape))


def test_errors_direction_and_rates_by_hand() -> None:
    # Two horizons. Sums: forecast +.02 -.01 +.01 +.03, realised +.01 +.01 -.02 0 (flat).
    t = table(
        ["A"] * 4,
        ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"],
        [[0.01, 0.01], [0.0, -0.01], [0.01, 0.0], [0.02, 0.01]],
        [[0.01, 0.0], [0.0, 0.01], [-0.01, -0.01], [0.01, -0.01]],
    )
    got = metrics.point_metrics(t)
    # Daily errors: 0 .01 | 0 -.02 | .02 .01 | .01 .02
    assert got["mae"] == pytest.approx(0.09 / 8)
    assert got["rmse"] == pytest.approx(math.sqrt(0.0015 / 8))
    # Sum errors: .01 -.02 .03 .03
    assert got["mae_sum"] == pytest.approx(0.09 / 4)
    assert got["rmse_sum"] == pytest.approx(math.sqrt(0.0023 / 4))
    # Says up, down, up, up; it was up, up, down, flat (not up): one hit of four.
    assert (got["accuracy"], got["base_rate"], got["majority"]) == (0.25, 0.5, 0.5)
    assert got["flat"] == 0.25
    assert (got["n"], got["dates"]) == (4, 4)


def test_a_price_that_came_back_is_flat_in_float32_too() -> None:
    steps = np.log(np.array([20.5 / 20.0, 20.0 / 20.5])).astype(np.float32).astype(np.float64)
    nudged = steps + np.array([3e-9, 0.0])
    got = metrics.point_metrics(table(["A"], ["2024-01-01"], [[0.1, 0.0]], nudged[None, :]))
    assert (got["flat"], got["base_rate"]) == (1.0, 0.0)


def test_calibration_by_hand() -> None:
    t = table(
        ["A"] * 4,
        ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"],
        np.zeros((4, 2)),
        [[0.01, 0.0], [0.02, 0.0], [-0.01, 0.0], [0.018, 0.0]],
        p_up=[0.8, 0.8, 0.2, 0.2],
    )
    got = metrics.point_metrics(t)
    assert got["brier"] == pytest.approx((0.04 + 0.04 + 0.04 + 0.64) / 4)
    # Two bins: .8 said and 1 seen, .2 said and .5 seen.
    assert got["ece"] == pytest.approx((0.2 + 0.3) / 2)
    # Sigma of the sum .01414, times 1.2816 = .01812: only .02 lies outside.
    assert got["coverage_80"] == 0.75


def test_a_constant_probability_is_one_bin() -> None:
    t = noise(2, 100)
    t["p_up"] = 0.55
    got = metrics.point_metrics(t)
    assert got["ece"] == pytest.approx(abs(0.55 - got["base_rate"]))
    assert got["accuracy"] == got["base_rate"]


def test_cross_sectional_ic_is_the_mean_over_dates() -> None:
    symbols = [f"S{i}" for i in range(5)]
    forecast = [1.0, 2, 3, 4, 5]
    realised = [[1.0, 2, 3, 4, 50], [5.0, 4, 3, 2, 1], [1.0, 1, 1, 1, 1], [1.0, 2, 3, 4, 5]]
    t = table(
        symbols * 4,
        [f"2024-01-0{day}" for day in range(1, 5) for _ in symbols],
        np.array(forecast * 4)[:, None] / 100,
        np.array(realised).reshape(-1, 1) / 100,
    )
    got = metrics.point_metrics(t)
    first = float(np.corrcoef(forecast, realised[0])[0, 1])
    assert got["ic_kind"] == "cross_sectional"
    # The third date does not vary: it has no correlation and is left out.
    assert got["ic"] == pytest.approx((first - 1 + 1) / 3)
    assert got["rank_ic"] == pytest.approx(1 / 3)
    # Of (1, -1, 1) with lag 1: variance 24/27, twice half of the covariance -16/27, three dates.
    assert got["rank_ic_se"] == pytest.approx(math.sqrt((24 - 16) / 27 / 3))


def test_few_symbols_use_time_series_ic() -> None:
    t = noise(3, 60)
    got = metrics.point_metrics(t)
    forecast, realised = (t[[f"{c}_{i}" for i in range(1, 6)]].sum(axis=1) for c in ("mu", "y"))
    rows = [t.index[t["symbol"] == s] for s in sorted(set(t["symbol"]))]
    pearson = [forecast[r].corr(realised[r]) for r in rows]
    spearman = [forecast[r].rank().corr(realised[r].rank()) for r in rows]
    assert got["ic_kind"] == "time_series"
    assert got["ic"] == pytest.approx(float(np.mean(pearson)))
    assert got["rank_ic"] == pytest.approx(float(np.mean(spearman)))
    # Independent noise: about 1 / sqrt(rows).
    assert 0.5 / math.sqrt(180) < got["ic_se"] < 1.6 / math.sqrt(180)


def test_what_is_undefined_is_none_and_everything_is_json() -> None:
    t = table(["A"] * 2, ["2024-01-01", "2024-01-02"], np.zeros((2, 1)), np.zeros((2, 1)))
    got = metrics.summarise(t, SPEC, 1, 0, {"A": "HOSE"})
    assert got["pooled"]["ic"] is None
    assert got["pooled"]["ic_se"] is None
    assert got["pooled"]["accuracy_interval"] is None
    assert got["pooled"]["distinguishable_from_chance"] is False
    json.dumps(got, allow_nan=False)
    empty = metrics.summarise(t.iloc[:0], SPEC, 1, 0, {})
    assert empty["pooled"]["accuracy"] is None
    assert empty["pooled"]["rmse"] is None
    json.dumps(empty, allow_nan=False)


def test_parts_are_those_of_their_rows_and_order_does_not_matter() -> None:
    t = noise(6, 80)
    venue = {f"S{i:03d}": "HOSE" if i < 4 else "UPCOM" for i in range(6)}
    got = metrics.summarise(t, SPEC, 5, 3, venue)
    assert list(got["by_exchange"]) == ["HOSE", "UPCOM"]
    assert got["by_exchange"]["HOSE"]["n"] == 320
    one = metrics.summarise(t[t["symbol"] == "S002"], SPEC, 5, 3, venue)["pooled"]
    assert got["by_symbol"]["S002"] == one
    shuffled = metrics.summarise(t.sample(frac=1, random_state=1), SPEC, 5, 3, venue)
    assert shuffled["pooled"]["accuracy_interval"] == got["pooled"]["accuracy_interval"]
    assert shuffled["pooled"]["rank_ic"] == pytest.approx(got["pooled"]["rank_ic"])
    assert metrics.summarise(t, SPEC, 5, 3, venue) == got


def test_the_pooled_part_alone_is_the_same() -> None:
    t = noise(12, 60)
    venue = dict.fromkeys(t["symbol"], "HOSE")
    whole = metrics.summarise(t, SPEC, 5, 3, venue)
    assert metrics.summarise_pooled(t, SPEC, 5, 3) == whole["pooled"]
    with pytest.raises(DataError, match="forecasts for 5 sessions, not 3"):
        metrics.summarise_pooled(t, SPEC, 3, 0)


def test_a_seer_is_distinguishable_and_a_coin_is_not() -> None:
    t = noise(6, 120)
    venue = dict.fromkeys(sorted(set(t["symbol"])), "HOSE")
    assert metrics.summarise(t, SPEC, 5, 0, venue)["pooled"]["distinguishable_from_chance"] is False
    t["p_up"] = np.where(t[[f"y_{i}" for i in range(1, 6)]].sum(axis=1) > 0, 0.9, 0.1)
    seer = metrics.summarise(t, SPEC, 5, 0, venue)["pooled"]
    assert seer["accuracy"] == 1.0
    assert seer["edge_interval"]["chance"] == [0.5, 0.5]
    assert seer["edge_interval"]["majority"][0] > 0.3
    assert seer["edge_interval"]["base_rate"][0] > 0.3
    assert seer["distinguishable_from_base_rate"] is True
    assert seer["edge_p_value"] == pytest.approx(dict.fromkeys(seer["edge_p_value"], 2 / 201))
    assert seer["distinguishable_from_chance"] is True


def test_always_up_is_never_told_from_its_base_rate() -> None:
    t = noise(6, 120)
    t["p_up"] = 0.55
    venue = dict.fromkeys(sorted(set(t["symbol"])), "HOSE")
    got = metrics.summarise(t, SPEC, 5, 0, venue)["pooled"]
    assert got["accuracy"] == got["base_rate"]
    assert got["edge_interval"]["base_rate"] == [0.0, 0.0]
    assert got["edge_p_value"]["base_rate"] == 1.0
    assert got["distinguishable_from_base_rate"] is False


def test_bad_tables_are_data_errors() -> None:
    t = noise(2, 20)
    venue = {"S000": "HOSE", "S001": "HNX"}
    with pytest.raises(DataError, match="lacks p_up"):
        metrics.point_metrics(t.drop(columns="p_up"))
    with pytest.raises(DataError, match="5 sessions, not 3"):
        metrics.summarise(t, SPEC, 3, 0, venue)
    with pytest.raises(DataError, match="no exchange known for S001"):
        metrics.summarise(t, SPEC, 5, 0, {"S000": "HOSE"})
    t.loc[25, "mu_2"] = np.nan
    with pytest.raises(DataError, match="1 rows are not finite, the first of S001"):
        metrics.point_metrics(t)


def test_the_whole_universe_is_judged_in_seconds() -> None:
    t = noise(102, 500)
    venue = dict.fromkeys(sorted(set(t["symbol"])), "HOSE")
    began = time.process_time()
    metrics.summarise(t, EvaluationSpec(), 5, 0, venue)
    seconds = time.process_time() - began
    print(f"{seconds:.2f} s")
    # About 2 s; the bar only catches a change of order.
    assert seconds < 15
