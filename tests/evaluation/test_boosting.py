"""LightGBM as a rival: the rows of the other baselines, what is planted is found, twice alike."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.test_baselines import HORIZON, SPEC, SYMBOLS, market, parts
from vnquant.evaluation import baselines, boosting, metrics
from vnquant.features.panel import Panel

present = pytest.mark.skipif(not boosting.available(), reason="lightgbm is not installed")
FORECASTS = ["p_up", *(f"{c}_{i}" for c in ("mu", "sigma") for i in range(1, HORIZON + 1))]
NAMES = ["lightgbm_per_symbol", "lightgbm_pooled", "lightgbm_ranked"]


@present
def test_it_forecasts_the_rows_of_the_other_baselines() -> None:
    given = (market(0.003), *parts(), SPEC)
    tables, other = boosting.compare(*given), baselines.compare(*given)["ridge_pooled"]
    assert list(tables) == NAMES
    for table in tables.values():
        assert list(table.columns) == list(other.columns)
        outcomes = [c for c in other.columns if c not in FORECASTS]
        assert table[outcomes].equals(other[outcomes])
        assert table["p_up"].between(0, 1).all()
        assert (table["sigma_1"] > 0).all()


@present
def test_a_planted_signal_is_found_and_noise_is_not() -> None:
    planted, noise = (boosting.compare(market(s), *parts(), SPEC) for s in (0.01, 0.0))
    for name in NAMES:
        assert metrics.point_metrics(planted[name])["accuracy"] > 0.8
        assert abs(metrics.point_metrics(noise[name])["accuracy"] - 0.5) < 0.1


@present
def test_it_repeats_itself_and_reads_no_outcome_of_the_test_part() -> None:
    panel, (windows, scalers, ends) = market(0.003), parts()
    first = boosting.compare(panel, windows, scalers, ends, SPEC)
    targets = panel.targets.copy()
    targets[np.concatenate([ends[s] for s in SYMBOLS])] *= -1
    again = boosting.compare(replace(panel, targets=targets), windows, scalers, ends, SPEC)
    for name in NAMES:
        assert first[name][FORECASTS].equals(again[name][FORECASTS])
        assert not first[name]["y_1"].equals(again[name]["y_1"])


@present
def test_a_symbol_without_test_windows_has_no_rows() -> None:
    windows, scalers, ends = parts()
    ends["AAA"] = ends["AAA"][:0]
    for table in boosting.compare(market(0.003), windows, scalers, ends, SPEC).values():
        assert set(table["symbol"]) == {"BBB"}


def test_where_it_is_not_installed_it_is_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert boosting.compare(market(0.0), *parts(), SPEC) == {}


def test_nor_where_a_library_of_the_system_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(name: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", refuses)
    assert boosting.compare(market(0.0), *parts(), SPEC) == {}


@present
def test_the_ranked_one_looks_past_what_moves_all_symbols() -> None:
    """A market that swings ten times as much as what is planted hides it from the pooled one."""
    quiet, loud = market(0.005), market(0.005)
    swing = np.random.default_rng(1).normal(0, 0.2, len(loud.calendar))[loud.session]
    loud.targets[:] += swing[:, None].astype(np.float32)

    def rank_correlation(panel: Panel, name: str) -> float:
        table = boosting.compare(panel, *parts(), SPEC)[name]
        one, other = (
            table[table["symbol"] == s].set_index("date")[["mu_1", "y_1"]] for s in SYMBOLS
        )
        return float(np.sign(one - other).prod(axis=1).mean())

    assert rank_correlation(quiet, "lightgbm_pooled") > 0.3
    assert rank_correlation(loud, "lightgbm_ranked") > 0.15
    assert rank_correlation(loud, "lightgbm_pooled") < 0.05
