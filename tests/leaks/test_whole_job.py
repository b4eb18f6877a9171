"""The whole job, from bars to forecasts, with the future taken away or replaced."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.leaks.conftest import prepare
from tests.stages.conftest import SPEC, context
from vnquant.evaluation import probes
from vnquant.features.panel import Panel
from vnquant.features.windows import Scaler, Windows, fit_scaler
from vnquant.market.folder import PriceFolder
from vnquant.market.sources import open_source
from vnquant.spec import (
    EnsembleSpec,
    FoldSpec,
    MemberSpec,
    PretrainSpec,
    RunSpec,
    WalkForwardSpec,
)
from vnquant.stages import fleet, rivals, run_stage

FOLDS = (
    FoldSpec(validation_start="2020-06-01", test_start="2021-01-04", test_end="2021-10-01"),
    FoldSpec(validation_start="2021-03-01", test_start="2021-10-01"),
)
LAST = pd.Timestamp("2021-09-30")
"""The first fold's last session: a job that ends there cannot know what comes after it."""
WALK: RunSpec = SPEC.model_copy(
    update={
        "symbols": ("FPT", "VNM"),
        "data": SPEC.data.model_copy(update={"start": dt.date(2017, 1, 1)}),
        "walk_forward": WalkForwardSpec(folds=FOLDS),
    }
)
REAL = ("ACV", "FPT", "HPG", "PVS", "SSI", "TIG", "VCB")


POOLED: RunSpec = WALK.model_copy(
    update={
        "pretrain": PretrainSpec(
            epochs=1, batch_size=32, ranking_weight=1.0, embedding="symbol", scaling="pooled"
        ),
        "ensemble": EnsembleSpec(weights="stacked"),
        "model": WALK.model.model_copy(
            update={"members": (MemberSpec(layers=1, dropout=0.1), MemberSpec(layers=1, dropout=0))}
        ),
    }
)
NAMES = ("forecasts", "baselines")


def alone(spec: RunSpec) -> RunSpec:
    """The same with the first fold only."""
    return spec.model_copy(update={"walk_forward": WalkForwardSpec(folds=FOLDS[:1])})


def forecasts(path: Path, spec: RunSpec, raw: pd.DataFrame) -> pd.DataFrame:
    ctx = context(path, spec)
    ctx.raw = raw
    run_stage(ctx, "walk_forward")
    parts = [pd.read_parquet(ctx.stage("walk_forward") / f"{name}.parquet") for name in NAMES]
    table = pd.concat([parts[0].assign(name="model"), parts[1]])
    first = table[(table["fold"] == 1) & (table["date"] <= LAST)]
    return first.set_index(["name", "symbol", "date"]).sort_index()


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return open_source("synthetic", None).load(WALK.symbols, start=WALK.data.start, end=None)


def assert_same(then: pd.DataFrame, whole: pd.DataFrame) -> None:
    """Equal forecasts where both have them; stacks of other widths sum in another order."""
    made = [c for c in whole.columns if not c.startswith("y_")]
    same = whole.index.intersection(then.index)
    assert len(same) > 0.9 * len(whole), "only the newest outcomes are not known yet"
    assert not len(then.index.difference(same))
    pd.testing.assert_frame_equal(then.loc[same, made], whole.loc[same, made], rtol=0, atol=1e-4)


@pytest.mark.parametrize("spec", [WALK, POOLED], ids=["alone", "pooled"])
def test_a_folds_forecasts_do_not_know_what_comes_after_it(
    raw: pd.DataFrame, tmp_path: Path, spec: RunSpec
) -> None:
    """Model and rivals alike, with the later prices gone and with other ones in their place."""
    other = raw.copy()
    later = other["date"] > LAST
    prices = ["open", "high", "low", "close", "adj_close"]
    other.loc[later, prices] *= np.where(np.arange(later.sum()) % 40 < 20, 1.02, 1.0)[:, None]
    whole = forecasts(tmp_path / "whole", spec, raw)
    assert_same(forecasts(tmp_path / "gone", alone(spec), raw[~later]), whole)
    assert_same(forecasts(tmp_path / "other", spec, other), whole)


def test_a_scaler_that_knows_the_future_would_be_noticed(
    raw: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above can fail: the same with a scale fitted on the test part too."""

    def everything(panel: Panel, w: Windows, lookback: int) -> Scaler:
        rows = np.concatenate([w.train, w.validation, w.test])
        return fit_scaler(panel, replace(w, train=rows), lookback)

    monkeypatch.setattr(fleet, "fit_scaler", everything)
    monkeypatch.setattr(rivals, "fit_scaler", everything)
    cut = raw["date"] <= LAST - pd.Timedelta(days=90)
    then = forecasts(tmp_path / "gone", alone(WALK), raw[cut])
    whole = forecasts(tmp_path / "whole", alone(WALK), raw)
    made = ["p_up", "mu_1", "sigma_1"]
    same = whole.index.intersection(then.index)
    for name in ("model", "ridge_per_symbol", "ridge_pooled"):  # the others need no scale
        gap = (then.loc[same, made] - whole.loc[same, made]).loc[name].abs().max().max()
        assert gap > 1e-4, name


@pytest.fixture(scope="module")
def real(shared_prices: Path) -> pd.DataFrame:
    return PriceFolder(shared_prices).load(REAL, start=dt.date(2016, 1, 1))


def test_real_prices_make_causal_features_that_know_no_level(real: pd.DataFrame) -> None:
    cuts = ("2018-01-24", "2020-03-24", "2022-04-25")
    assert probes.not_causal(prepare, real, cuts) == []
    assert probes.depends_on_level(prepare, real) == []


def test_an_adjustment_taken_back_later_changes_no_feature(real: pd.DataFrame) -> None:
    """TIG 2023-06-13 was adjusted by a tenth, and on the next day no more."""
    assert probes.not_causal(prepare, real, ["2023-06-12", "2023-06-13", "2023-06-14"]) == []
    tig = real[real["symbol"] == "TIG"].reset_index(drop=True)
    panel = prepare(tig)
    row = int(np.flatnonzero(panel.dates == np.datetime64("2023-06-13"))[0])
    assert np.isnan(panel.targets[row - 5 : row + 1]).any(axis=1).all()
    assert np.isfinite(panel.targets[row - 6]).all()
