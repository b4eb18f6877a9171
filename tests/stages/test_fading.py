"""Inputs that fade with age do so wherever a window is read, and embeddings do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stages.conftest import SPEC, context
from vnquant.features.windows import faded, fit_scaler, gather, split
from vnquant.inference.predictor import Member, load_models, member_forecasts
from vnquant.stages import run_stage
from vnquant.stages.context import Context
from vnquant.stockformer.files import ModelFile
from vnquant.stockformer.losses import TARGET_CLIP
from vnquant.training.data import TrainingData
from vnquant.training.embedding import Embedding

CPU = torch.device("cpu")


def test_a_forecast_sees_the_faded_inputs_that_the_model_was_trained_on(tmp_path: Path) -> None:
    fading = SPEC.windows.model_copy(update={"half_life": 4.0})
    ctx = context(tmp_path / "w", SPEC.model_copy(update={"windows": fading}))
    run_stage(ctx, "train")
    windows = {w.symbol: w.validation for w in ctx.windows_of(list(ctx.spec.symbols))}
    models = load_models(ctx.stage("train") / "models", windows)
    assert {m.shape.half_life for m in models} == {4.0}

    def losses(asked: list[ModelFile]) -> dict[str, float]:
        said = member_forecasts(asked, ctx.panel, windows)
        return {s: _loss(ctx, member, windows[s]) for s, (member,) in said.items()}

    recorded = {m.symbol: m.meta["validation_loss"] for m in models}
    assert losses(models) == pytest.approx(recorded, rel=1e-4)
    alike = [replace(m, shape=replace(m.shape, half_life=None)) for m in models]
    for symbol, loss in losses(alike).items():
        assert abs(loss - recorded[symbol]) > 1e-3


def _loss(ctx: Context, member: Member, ends: np.ndarray) -> float:
    """The validation loss of what a member says: `vnquant.stockformer.losses.per_model_loss`."""
    scale = member.model.meta["scaler"]["target_scale"]
    # In float32, as in training: a share that ends where it began has risen by its rounding.
    y = ctx.panel.targets[ends] / np.float32(scale)
    rose = (torch.from_numpy(y).sum(-1) > 0).numpy()
    mu, sigma = member.forecast.mu / scale, member.forecast.sigma / scale
    error = (np.clip(y, -TARGET_CLIP, TARGET_CLIP) - mu) / sigma
    path = (0.5 * error**2 + np.log(sigma)).mean(axis=1)
    up = np.where(rose, member.forecast.p_up, 1 - member.forecast.p_up)
    return float((path - ctx.spec.training.direction_weight * np.log(up)).mean())


def test_features_fade_and_an_embedding_does_not(ctx: Context) -> None:
    panel, lookback = ctx.panel, 6
    windows = split(panel, ctx.spec.windows.model_copy(update={"lookback": lookback}))
    scalers = {w.symbol: fit_scaler(panel, w) for w in windows}
    exchange = Embedding(("HOSE", "HNX"), dict.fromkeys(panel.symbols, "HNX"))
    data = TrainingData.build(
        panel, {0: windows}, scalers, lookback, CPU, torch.float32, exchange, half_life=2.0
    )
    ends = torch.from_numpy(windows[0].train[:3])
    got, whole = data.windows(ends), gather(data.features, ends, lookback)
    weights = faded(lookback, 2.0, CPU)
    assert weights is not None
    torch.testing.assert_close(got[..., :-2], whole[..., :-2] * weights)
    torch.testing.assert_close(got[..., -2:], whole[..., -2:], rtol=0, atol=0)
    assert data.pooled({0: [w.symbol for w in windows]}).fading is data.fading
