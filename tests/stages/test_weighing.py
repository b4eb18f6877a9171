"""The weights of the members: where they come from, where they are kept, and who heeds them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import SPEC, context
from tests.stages.test_walk_forward import FOLDS
from vnquant.inference.predictor import load_models, member_forecasts, predict
from vnquant.inference.weights import inverse_loss
from vnquant.spec import EnsembleSpec, MemberSpec, RunSpec, WalkForwardSpec
from vnquant.stages import calibrating, run_stage
from vnquant.stages.context import Context
from vnquant.stages.weighing import weigh

MEMBERS = (MemberSpec(layers=1, dropout=0.1), MemberSpec(layers=2, dropout=0.1))
TWO: RunSpec = SPEC.model_copy(update={"model": SPEC.model.model_copy(update={"members": MEMBERS})})


def weighted(how: str, **more: object) -> RunSpec:
    return TWO.model_copy(update={"ensemble": EnsembleSpec(weights=how), **more})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two") / "w"
    run_stage(context(path, weighted("inverse_loss")), "train")
    return path


@pytest.fixture
def ctx(two: Path, tmp_path: Path) -> Context:
    shutil.copytree(two, tmp_path / "w")
    return context(tmp_path / "w", weighted("inverse_loss"))


def weights(folder: Path, symbol: str) -> list[float]:
    metas = (json.loads((folder / f"{symbol}.m{m}.json").read_text()) for m in (0, 1))
    return [meta["weight"] for meta in metas]


def test_inverse_loss_is_that_of_the_validation_part(ctx: Context) -> None:
    folder = ctx.stage("train") / "models"
    ends = {w.symbol: w.validation for w in ctx.windows}
    said = member_forecasts(load_models(folder, ends), ctx.panel, ends)
    for symbol, members in said.items():
        by_member = sorted(members, key=lambda m: m.model.member)
        expected = inverse_loss(
            np.stack([m.forecast.mu.sum(1) for m in by_member], axis=1),
            ctx.panel.targets[ends[symbol]].sum(1).astype(np.float64),
        )
        np.testing.assert_allclose(weights(folder, symbol), expected, rtol=1e-5)
    assert weights(folder, "FPT") != weights(folder, "VCB")


def test_forecasts_heed_the_weights(ctx: Context) -> None:
    folder, ends = ctx.stage("train") / "models", {"FPT": ctx.windows[0].test}
    models = load_models(folder, ends)
    before = predict(models, ctx.panel, ends)
    alone = predict([m for m in models if m.member == 1], ctx.panel, ends)
    for model in models:
        model.meta["weight"] = float(model.member)
    pd.testing.assert_frame_equal(predict(models, ctx.panel, ends), alone)
    assert not np.allclose(before["mu_1"], alone["mu_1"])
    for model in models:
        model.meta["weight"] = 0.5
    equal = predict(models, ctx.panel, ends)
    for model in models:
        del model.meta["weight"]
    pd.testing.assert_frame_equal(predict(models, ctx.panel, ends), equal, rtol=1e-12)


def test_weighing_again_changes_nothing(ctx: Context) -> None:
    folder = ctx.stage("train") / "models"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    weigh(ctx, folder, ctx.windows)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_the_curve_is_learned_with_the_weights_in_place(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ends = ctx.stage("train") / "models", {w.symbol: w.validation for w in ctx.windows}
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for path in folder.glob("*.json"):  # as training leaves them
        own = json.loads(path.read_text())
        path.write_text(json.dumps({k: own[k] for k in own.keys() - {"weight", "calibration"}}))
    alike = predict(load_models(folder, ends), ctx.panel, ends)["p_model"]
    seen: list[pd.Series] = []
    honest = calibrating.learned
    monkeypatch.setattr(
        calibrating, "learned", lambda known: seen.append(known["p_model"]) or honest(known)
    )
    ctx.stage("train").reopen()
    run_stage(ctx, "train")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    (learned,) = seen
    assert learned.equals(predict(load_models(folder, ends), ctx.panel, ends)["p_model"])
    assert not learned.equals(alike)


def test_the_test_part_has_no_say(ctx: Context) -> None:
    folder = ctx.stage("train") / "models"
    before = weights(folder, "FPT")
    for w in ctx.windows:
        ctx.panel.targets[w.test] = 9.0
    weigh(ctx, folder, ctx.windows)
    assert weights(folder, "FPT") == before
    for w in ctx.windows:
        ctx.panel.targets[w.validation] = 9.0
    weigh(ctx, folder, ctx.windows)
    assert weights(folder, "FPT") != before


def test_stacked_weights_are_one_set_for_all_symbols_of_a_fold(tmp_path: Path) -> None:
    spec = weighted("stacked", walk_forward=WalkForwardSpec(folds=FOLDS[1:]))
    ctx = context(tmp_path / "w", spec)
    run_stage(ctx, "walk_forward")
    for fold in ("fold-1", "fold-2"):
        folder = ctx.stage("walk_forward") / "models" / fold
        found = weights(folder, "FPT")
        assert found == weights(folder, "VCB")
        assert sum(found) == pytest.approx(1.0)


def test_equal_weights_are_written_nowhere(trained: Path) -> None:
    for path in (context(trained).stage("train") / "models").glob("*.json"):
        assert "weight" not in json.loads(path.read_text())
