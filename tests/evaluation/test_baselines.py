"""Baselines: same rows, no look at test targets, and a planted signal is found."""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

from vnquant.evaluation import baselines, metrics, verdict
from vnquant.features.catalogue import NAMES
from vnquant.features.panel import Panel
from vnquant.features.windows import Scaler, Windows
from vnquant.spec import EvaluationSpec, GateSpec, RunSpec, WindowSpec

SYMBOLS = ("AAA", "BBB")
EXCHANGES = dict(zip(SYMBOLS, ("HOSE", "HNX"), strict=True))
DAYS, HORIZON, SIGNAL = 700, 5, 3
SPEC = RunSpec(
    symbols=SYMBOLS,
    windows=WindowSpec(validation_start=dt.date(2023, 1, 1), test_start=dt.date(2023, 6, 1)),
    evaluation=EvaluationSpec(bootstrap_samples=200),
)


def market(strength: float) -> Panel:
    """Feature 3 of a row sets the mean of the row's own targets; all else is noise."""
    random = np.random.default_rng(5)
    rows = DAYS * len(SYMBOLS)
    features = random.normal(0, 2, (rows, 50)).astype(np.float32)
    targets = random.normal(0, 0.02, (rows, HORIZON)) + strength * features[:, [SIGNAL]]
    calendar = np.datetime64("2021-01-04", "D") + np.arange(DAYS)
    return Panel(
        symbols=SYMBOLS,
        exchanges=("HOSE", "HNX"),
        features=features,
        targets=targets.astype(np.float32),
        dates=np.tile(calendar, len(SYMBOLS)),
        session=np.tile(np.arange(DAYS, dtype=np.int32), len(SYMBOLS)),
        calendar=calendar,
        close=np.full(rows, 20.0),
        segment=np.zeros(rows, dtype=np.int32),
        offsets=np.arange(len(SYMBOLS) + 1, dtype=np.int64) * DAYS,
    )


def parts() -> tuple[list[Windows], dict[str, Scaler], dict[str, np.ndarray]]:
    windows = []
    for i, symbol in enumerate(SYMBOLS):
        row = np.arange(DAYS, dtype=np.int64) + i * DAYS
        windows.append(Windows(symbol, row[60:450], row[455:500], row[505:], int(row[-1])))
    scaler = Scaler(np.zeros(50, np.float32), np.full(50, 2, np.float32), 0.02)
    return windows, dict.fromkeys(SYMBOLS, scaler), {w.symbol: w.test for w in windows}


def test_every_baseline_forecasts_the_same_rows() -> None:
    panel = market(0.0)
    windows, scalers, ends = parts()
    tables = baselines.compare(panel, windows, scalers, ends, SPEC)
    assert list(tables) == ["always_up", "momentum", "ridge_per_symbol", "ridge_pooled"]
    rows = np.concatenate([ends[s] for s in SYMBOLS])
    for table in tables.values():
        assert list(table["symbol"]) == ["AAA"] * 195 + ["BBB"] * 195
        assert (table["date"].to_numpy().astype("datetime64[D]") == panel.dates[rows]).all()
        realised = table[[f"y_{i}" for i in range(1, 6)]].to_numpy()
        assert (realised == panel.targets[rows]).all()
        assert table["p_up"].between(0, 1).all()
        assert (table[[f"sigma_{i}" for i in range(1, 6)]] > 0).all().all()


def test_baselines_ignore_every_target_outside_training() -> None:
    panel = market(0.003)
    windows, scalers, ends = parts()
    before = baselines.compare(panel, windows, scalers, ends, SPEC)
    seen = np.zeros(len(panel.targets), dtype=bool)
    for w in windows:
        seen[w.train] = True
    changed = np.where(seen[:, None], panel.targets, np.float32(0.5))
    after = baselines.compare(replace(panel, targets=changed), windows, scalers, ends, SPEC)
    forecasts = ["p_up", *(f"{c}_{i}" for c in ("mu", "sigma") for i in range(1, 6))]
    for name, table in before.items():
        assert table[forecasts].equals(after[name][forecasts]), name
        assert not table["y_1"].equals(after[name]["y_1"])


def test_no_forecast_sees_the_features_of_another_test_row() -> None:
    panel = market(0.003)
    windows, scalers, ends = parts()
    before = baselines.compare(panel, windows, scalers, ends, SPEC)
    changed = panel.features.copy()
    for w in windows:
        changed[w.test[1::2]] = 99.0
        changed[w.validation] = -99.0
    after = baselines.compare(replace(panel, features=changed), windows, scalers, ends, SPEC)
    for name, table in before.items():
        kept = np.concatenate([np.arange(0, 195, 2), np.arange(195, 390, 2)])
        other = np.setdiff1d(np.arange(390), kept)
        assert_frame_equal(table.iloc[kept], after[name].iloc[kept], rtol=1e-9)
        if name != "always_up":
            assert (table["mu_1"] != after[name]["mu_1"]).to_numpy()[other].all()


def test_always_up_says_up_even_after_a_fall() -> None:
    panel = market(0.0)
    windows, scalers, ends = parts()
    falling = replace(panel, targets=panel.targets - np.float32(0.01))
    table = baselines.always_up(falling, windows, scalers, ends, SPEC)
    assert (table["p_up"] > 0.5).all()
    train = falling.targets[windows[0].train].astype(np.float64)
    assert table["mu_1"][0] == pytest.approx(train.mean())
    assert table["sigma_3"][0] == pytest.approx(train.std())
    got = metrics.point_metrics(table)
    assert got["accuracy"] == got["base_rate"]


def test_momentum_goes_on_at_the_pace_of_return_5() -> None:
    panel = market(0.0)
    windows, scalers, ends = parts()
    column = NAMES.index("return_5")
    table = baselines.compare(panel, windows, scalers, ends, SPEC)["momentum"]
    past = panel.features[ends["AAA"], column].astype(np.float64)
    first = table[table["symbol"] == "AAA"]
    assert first["mu_4"].to_numpy() == pytest.approx(past / 5)
    assert ((first["p_up"] > 0.5).to_numpy() == (past > 0)).all()


@pytest.mark.parametrize("forecaster", [baselines.ridge_per_symbol, baselines.ridge_pooled])
def test_ridge_finds_a_planted_signal_and_none_in_noise(forecaster: object) -> None:
    assert callable(forecaster)
    windows, scalers, ends = parts()
    planted = metrics.point_metrics(forecaster(market(0.01), windows, scalers, ends, SPEC))
    # Signal deviation .1 against noise .045 in the sum: the best possible correlation is .913.
    assert planted["ic"] == pytest.approx(0.913, abs=0.04)
    assert planted["accuracy"] > 0.8
    # In-sample residuals of 50 features on 390 windows are some 7 % too small.
    assert 0.70 < planted["coverage_80"] < 0.86
    plain = metrics.point_metrics(forecaster(market(0.0), windows, scalers, ends, SPEC))
    assert abs(plain["ic"]) < 4 / math.sqrt(390)


def test_ridge_probability_is_that_of_its_own_gaussian() -> None:
    windows, scalers, ends = parts()
    table = baselines.ridge_per_symbol(market(0.003), windows, scalers, ends, SPEC)
    row = table.iloc[7]
    z = 5 * row["mu_1"] / (row["sigma_1"] * math.sqrt(5))
    assert row["p_up"] == pytest.approx(0.5 * math.erfc(-z / math.sqrt(2)))


def test_a_symbol_without_training_windows_gets_a_neutral_forecast() -> None:
    windows, scalers, ends = parts()
    bare = [replace(windows[0], train=np.zeros(0, np.int64)), windows[1]]
    tables = baselines.compare(market(0.003), bare, scalers, ends, SPEC)
    alone = tables["ridge_per_symbol"].query("symbol == 'AAA'")
    assert (alone["mu_1"] == 0).all()
    assert (alone["p_up"] == 0.5).all()
    assert alone["sigma_1"].to_numpy() == pytest.approx(0.02)


def test_the_verdict_sets_the_model_beside_its_baselines() -> None:
    panel = market(0.01)
    windows, scalers, ends = parts()
    tables = baselines.compare(panel, windows, scalers, ends, SPEC)
    model = tables["ridge_per_symbol"]
    spec = SPEC.model_copy(update={"gate": GateSpec(max_rmse=0.05, require_significance=True)})
    result = verdict.build(model, tables, spec, EXCHANGES)
    assert [r["name"] for r in result["comparison"]] == ["model", *tables]
    assert set(result["by_symbol"]) == set(SYMBOLS)
    assert set(result["by_exchange"]) == {"HOSE", "HNX"}
    assert sum(b["n"] for b in result["reliability"]) == len(model)
    json.dumps(result, allow_nan=False)
    assert result["gate"]["passed"] is True
    assert "distinguishably better than 50 % chance" in result["sentence"]
    page = verdict.to_markdown(result)
    assert result["sentence"] in page
    assert result["gate"]["reason"] in page
    for name in ("model", *tables, *SYMBOLS, *EXCHANGES.values()):
        assert f"| {name} |" in page
    # The tables of figures have one width, that of verdicts another.
    assert len({line.count("|") for line in page.splitlines() if line.startswith("|")}) == 2


def test_the_verdict_says_when_there_is_nothing_to_tell() -> None:
    windows, scalers, ends = parts()
    table = baselines.ridge_per_symbol(market(0.0), windows, scalers, ends, SPEC)
    noise = verdict.build(table, {}, SPEC, EXCHANGES)
    assert "not distinguishable from 50 % chance" in noise["sentence"]
    few = verdict.build(table.head(12), {}, SPEC, EXCHANGES)
    assert "too few" in few["sentence"]
    none = verdict.build(table.head(0), {}, SPEC, EXCHANGES)
    assert none["sentence"] == "There was nothing to judge."
    assert none["gate"]["passed"] is False
    assert "undefined" in verdict.to_markdown(none)
