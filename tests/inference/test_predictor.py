"""Forecasts read only the rows that their windows cover, and the same bits come out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from vnquant.features.panel import Panel, build_panel
from vnquant.features.windows import Scaler, gather
from vnquant.inference import predictor
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.synthetic import SyntheticMarket
from vnquant.stockformer.files import ModelFile
from vnquant.stockformer.layout import Shape

SYMBOLS = ("FPT", "HPG", "VCB")
LOOKBACK = 60
SHAPE = partial(Shape, features=50, lookback=LOOKBACK, horizon=5, d_model=16, heads=2, d_ff=32)


@pytest.fixture(scope="module")
def panel() -> Panel:
    raw = SyntheticMarket().load(SYMBOLS)
    calendar = sessions(raw)
    return build_panel(inspect(raw, calendar, max_gap=10).clean, calendar, 5)


@pytest.fixture(scope="module")
def models() -> list[ModelFile]:
    rng = np.random.default_rng(1)
    made = []
    for i, symbol in enumerate(SYMBOLS):
        scaler = Scaler(
            rng.normal(size=50).astype(np.float32),
            np.full(50, 1.5 + i, np.float32),
            0.01 + 0.01 * i,
        )
        for member, layers in enumerate((1, 2)):
            shape = SHAPE(layers=layers)
            meta = {"symbol": symbol, "member": member, "scaler": scaler.to_dict()}
            made.append(ModelFile(shape, torch.from_numpy(shape.initial_row(rng)), meta))
    return made


@pytest.fixture(scope="module")
def ends(panel: Panel) -> dict[str, np.ndarray]:
    """Different numbers of windows: overlapping ones, the newest alone, and two far apart."""
    last = {s: int(panel.offsets[i + 1]) - 1 for i, s in enumerate(panel.symbols)}
    return {
        "FPT": last["FPT"] - np.arange(70)[::-1],
        "HPG": np.array([last["HPG"]]),
        "VCB": np.array([last["VCB"] - 900, last["VCB"]]),
    }


def test_windows_are_those_of_the_whole_panel_scaled(
    panel: Panel, models: list[ModelFile], ends: dict[str, np.ndarray]
) -> None:
    scalers = {m.symbol: Scaler.from_dict(m.meta["scaler"]) for m in models}
    scaled, placed = predictor.scaled_windows(panel, scalers, ends, LOOKBACK)
    for symbol, scaler in scalers.items():
        whole = torch.from_numpy(scaler.transform(panel.features))
        expected = gather(whole, torch.from_numpy(ends[symbol]), LOOKBACK)
        found = gather(torch.from_numpy(scaled), torch.from_numpy(placed[symbol]), LOOKBACK)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert len(scaled) == (LOOKBACK + 69) + LOOKBACK + 2 * LOOKBACK


def test_groups_kept_forecast_the_same_again(
    panel: Panel, models: list[ModelFile], ends: dict[str, np.ndarray]
) -> None:
    alike = {s: rows[-1:] for s, rows in ends.items()}
    kept = list(predictor.groups(models))
    once = predictor.predict(models, panel, alike, built=kept)
    pd.testing.assert_frame_equal(once, predictor.predict(models, panel, alike))
    pd.testing.assert_frame_equal(once, predictor.predict(models, panel, alike, built=kept))
    other = {s: rows - 1 for s, rows in alike.items()}
    assert (predictor.predict(models, panel, other, built=kept)["mu_1"] != once["mu_1"]).all()


def test_a_symbol_is_the_same_alone_as_among_others(
    panel: Panel, models: list[ModelFile], ends: dict[str, np.ndarray]
) -> None:
    together = predictor.predict(models, panel, ends)
    for symbol in SYMBOLS:
        own = [m for m in models if m.symbol == symbol]
        alone = predictor.predict(own, panel, {symbol: ends[symbol]})
        among = together[together["symbol"] == symbol].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, among, rtol=1e-5, atol=1e-7)


def test_models_whose_inputs_fade_hear_less_of_old_sessions(
    panel: Panel, models: list[ModelFile], ends: dict[str, np.ndarray]
) -> None:
    newest = {s: rows[-1:] for s, rows in ends.items()}
    long_ago = np.concatenate([rows - 40 for rows in newest.values()])
    changed = replace(panel, features=panel.features.copy())
    changed.features[long_ago] += 3.0

    def moved(half_life: float | None) -> float:
        made = [ModelFile(replace(m.shape, half_life=half_life), m.row, m.meta) for m in models]
        before, after = (predictor.predict(made, p, newest) for p in (panel, changed))
        return float(np.abs(before["mu_1"] - after["mu_1"]).sum())

    assert 0 < moved(5.0) < 0.1 * moved(None)


def test_groups_hold_one_shape_and_each_model_once(
    monkeypatch: pytest.MonkeyPatch, models: list[ModelFile]
) -> None:
    monkeypatch.setitem(predictor.MODELS_PER_CALL, "cpu", 2)
    made = list(predictor.groups(models))
    assert [len(g.models) for g in made] == [2, 1, 2, 1]
    assert all(m.shape == g.shape for g in made for m in g.models)
    seen = [(m.symbol, m.member) for g in made for m in g.models]
    assert sorted(seen) == sorted((m.symbol, m.member) for m in models)
