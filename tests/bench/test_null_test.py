"""The null test, small: the whole job finds nothing where there is nothing, and what is planted."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.null_test import (
    BAR,
    CARRY,
    Market,
    Recipe,
    counted,
    longest,
    markets,
    on_one_gpu,
    trial,
)
from vnquant.features.panel import Panel
from vnquant.market.sources import open_source
from vnquant.spec import MemberSpec, ModelSpec
from vnquant.stages import features

SYMBOLS = ("ACV", "FPT", "HPG", "MBB", "PVS", "SSI", "VCB", "VNM")
TINY = ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),))
SEEDS = 3


RECIPE = Recipe(epochs=3, device="cpu", model=TINY)


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return open_source("synthetic", None).load(SYMBOLS, start=dt.date(2018, 1, 1), end=None)


@pytest.fixture(scope="module")
def trials(raw: pd.DataFrame) -> list[dict[str, Any]]:
    return [trial(raw, pd.DataFrame(), m, RECIPE) for m in markets([1], SEEDS, 1)]


@pytest.mark.slow
def test_nothing_passes_where_there_is_nothing_to_find(trials: list[dict[str, Any]]) -> None:
    null = [t for t in trials if not t["carry"]]
    assert len(null) == SEEDS
    assert not any(t["set"] or t["forecasts"] for t in null)
    shares = [s for t in null for s in t["shares"].values()]
    assert len(shares) == SEEDS * len(SYMBOLS)
    for kind in ("verdict", "alone"):
        assert sum(s[kind] for s in shares) / len(shares) < BAR
    # The bar of the original plan, without proof, lets them through.
    assert sum(s["bare"] for s in shares) / len(shares) > BAR


@pytest.mark.slow
def test_what_is_planted_is_found(trials: list[dict[str, Any]]) -> None:
    """Or the judge would refuse everything, and the test above could not fail."""
    (control,) = [t for t in trials if t["carry"]]
    assert control["forecasts"]
    assert control["accuracy"] > 0.55
    assert sum(s["verdict"] for s in control["shares"].values()) > len(SYMBOLS) / 2


@pytest.mark.slow
def test_a_leak_on_the_way_passes_where_nothing_should(
    raw: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the null test is for: features of five sessions later, in a market without any order."""
    honest = features.build_panel

    def leaking(*given: Any) -> Panel:
        panel = honest(*given)
        return replace(panel, features=np.roll(panel.features, -5, axis=0))

    monkeypatch.setattr(features, "build_panel", leaking)
    found = trial(raw, pd.DataFrame(), Market(1, 0), RECIPE)
    assert found["forecasts"]
    assert sum(s["verdict"] for s in found["shares"].values()) / len(SYMBOLS) > BAR


def test_passes_are_counted_by_kind_of_market() -> None:
    share = {"verdict": False, "alone": True, "bare": True}
    found = [
        {"carry": 0.0, "block": b, "set": b == 1, "forecasts": True, "shares": {"A": share}}
        for b in (1, 1, 10)
    ]
    rows = counted(found)
    assert [r["passed"] for r in rows] == [2, 2, 0, 2, 2, 0, 1, 0, 1, 1]
    assert [r["of"] for r in rows] == [2] * 5 + [1] * 5
    assert rows[2]["95 % interval"] == "0.0% to 65.8%"


def test_markets_take_turns_and_controls_come_early() -> None:
    found = list(markets([1, 10], 2, 1))
    assert found == [Market(1, 0), Market(10, 0), Market(1, 2, CARRY), Market(1, 1), Market(10, 1)]


def test_the_longest_histories_of_the_last_ten_years_are_taken() -> None:
    days = pd.date_range("2000-01-03", "2020-01-03", freq="B")
    lengths = {"OLD": days[:-700], "NEW": days[-600:], "ALL": days}
    raw = pd.concat([pd.DataFrame({"symbol": s, "date": d}) for s, d in lengths.items()])
    found = longest(raw, 2)
    assert sorted(found["symbol"].unique()) == ["ALL", "OLD"]
    assert found["date"].min() > pd.Timestamp("2010-01-03")


def test_processes_take_turns_at_the_gpus_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = multiprocessing.get_context("spawn").Value("i", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given = []
    for _ in range(3):
        on_one_gpu(begun, ["4", "6"])
        given.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert given == ["4", "6", "4"]
    on_one_gpu(begun, [])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4", "without a GPU nothing is said of one"
