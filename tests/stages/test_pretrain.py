"""Pooled pre-training: what it sees, what it hands on, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stages.conftest import SPEC, context, happened, killed, rows
from tests.stages.test_walk_forward import FOLDS
from vnquant.errors import DataError
from vnquant.evaluation.metrics import point_metrics
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.spec import PretrainSpec, RunSpec, WalkForwardSpec
from vnquant.stages import run_stage
from vnquant.stages.context import Context
from vnquant.stages.fleet import Fleet
from vnquant.stages.worker import Worker, open_watch
from vnquant.stockformer.files import load_model
from vnquant.training.data import POOL, ModelId
from vnquant.training.stack import Stack, Validation

POOLED: RunSpec = SPEC.model_copy(
    update={
        "pretrain": PretrainSpec(epochs=2, batch_size=32, patience=None),
        "training": SPEC.training.model_copy(update={"epochs": 2}),
    }
)
WALK: RunSpec = POOLED.model_copy(
    update={"symbols": ("FPT", "VNM"), "walk_forward": WalkForwardSpec(folds=FOLDS[1:])}
)


def changed(spec: RunSpec = POOLED, **pretrain: object) -> RunSpec:
    assert spec.pretrain is not None
    return spec.model_copy(update={"pretrain": spec.pretrain.model_copy(update=pretrain)})


def _worse(found: Validation, by: float) -> Validation:
    return Validation(found.loss + by, found.score + by)


def pooled_row(ctx: Context, stage: str = "train", fold: str = "") -> torch.Tensor:
    return load_model(ctx.stage(stage) / "pretrain" / "models" / fold / "pool.m0.safetensors").row


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretrained") / "w"
    run_stage(context(path, POOLED), "train")
    return path


@pytest.fixture
def ctx(pretrained: Path) -> Context:
    return context(pretrained, POOLED)


@pytest.fixture
def untrained(pretrained: Path, tmp_path: Path) -> Context:
    """The same with its features only, and a checkpoint after every epoch."""
    shutil.copytree(pretrained, tmp_path / "w")
    ctx = context(tmp_path / "w", POOLED, checkpoint_epochs=1)
    shutil.rmtree(ctx.stage("train").path)
    (ctx.run.path / "events.jsonl").unlink()
    return ctx


def test_the_pool_is_every_symbols_training_part_and_nothing_else(ctx: Context) -> None:
    fleet = Fleet(ctx, [ModelId(POOL, 0)])
    data = Worker(fleet, open_watch(ctx, 2**40), lambda *_: None)._data
    for part in ("train", "validation"):
        own = [getattr(w, part) for w in ctx.windows]
        assert np.array_equal(np.sort(getattr(data, part)[POOL]), np.sort(np.concatenate(own)))
    assert fleet.total_steps == 2 * -(-sum(len(w.train) for w in ctx.windows) // 32)


def test_models_start_from_the_pooled_weights_and_say_so(ctx: Context) -> None:
    manifest = json.loads((ctx.run.path / "manifest.json").read_text())
    weights = manifest["stages"]["train"]["pretraining"]["weights"]
    pool = load_model(ctx.stage("train") / "pretrain" / "models" / "pool.m0.safetensors")
    assert weights == {"pool.m0": pool.meta["sha256"]}
    assert pool.meta["symbols"] == ["FPT", "VCB"]
    assert "calibration" not in pool.meta
    for name, row in rows(ctx).items():
        assert not torch.equal(row, pool.row), "fine-tuning moved nothing"
        meta = json.loads((ctx.stage("train") / "models" / f"{name}.json").read_text())
        assert meta["pretrained"] == pool.meta["sha256"]
        assert "calibration" in meta


def test_without_fine_tuning_every_symbol_has_the_pooled_weights(tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", changed(fine_tune=False), teams=2)
    run_stage(ctx, "train")
    started = len(happened(ctx, "team_started"))
    assert started == 2, "the pool is shared among teams, handing it out is not"
    expected = pooled_row(ctx)
    assert len(rows(ctx)) == 2
    assert all(torch.equal(row, expected) for row in rows(ctx).values())


def test_pooled_weights_stay_where_no_epoch_betters_them(
    untrained: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fine-tuning that only does harm leaves the weights that it began with."""
    honest = Stack.validate
    # Rounds of fine-tuning look bad; the pooled weights before them (epoch 0) and the pool do not.
    monkeypatch.setattr(
        Stack,
        "validate",
        lambda s: _worse(honest(s), 100.0 if s.models[0].symbol != POOL and s.inner else 0.0),
    )
    run_stage(untrained, "train")
    expected = pooled_row(untrained)
    assert all(torch.equal(row, expected) for row in rows(untrained).values())


def test_given_the_pooled_weights_a_model_does_not_depend_on_its_stack(
    ctx: Context, untrained: Context
) -> None:
    narrow = context(untrained.workspace.path, POOLED, stack_width=1)
    run_stage(narrow, "train")
    for name, row in rows(narrow).items():
        torch.testing.assert_close(row, rows(ctx)[name], rtol=0, atol=2e-4)


def test_one_more_symbol_is_another_pool(ctx: Context, tmp_path: Path) -> None:
    more = POOLED.model_copy(update={"symbols": ("FPT", "HPG", "VCB")})
    wider = context(tmp_path / "w", more)
    run_stage(wider, "train")
    assert (pooled_row(wider) - pooled_row(ctx)).abs().max() > 1e-3


def test_nothing_after_the_training_part_reaches_the_pooled_weights(
    ctx: Context, tmp_path: Path
) -> None:
    """One epoch, so that the validation part chooses nothing; its numbers are then replaced."""
    found = []
    for name in ("honest", "garbled"):
        one = context(tmp_path / name, changed(epochs=1))
        run_stage(one, "features")
        if name == "garbled":
            last = max(int(one.panel.session[w.train].max()) for w in one.windows)
            later = one.panel.session > last
            one.panel.features[later] = 1e3
            # A target of the last training windows looks ahead, to sessions before the validation.
            one.panel.targets[later] = 1.0
        run_stage(one, "train")
        found.append(pooled_row(one))
    assert torch.equal(*found)


def test_a_diverged_pool_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", POOLED)
    run_stage(ctx, "features")
    row = int(ctx.windows[0].train[50])
    ctx.panel.targets[row] = np.nan
    with pytest.raises(DataError, match="pooled model of member 0 diverged"):
        run_stage(ctx, "train")


@pytest.mark.parametrize("event", ["checkpoint", "models_finished"])
def test_killed_in_the_pooled_phase_or_after_it_ends_in_the_same_bits(
    ctx: Context, untrained: Context, event: str
) -> None:
    killed(untrained, "train", lambda: bool(happened(untrained, event)))
    assert untrained.stage("train").done() is None
    run_stage(untrained, "train")
    if event == "checkpoint":
        assert happened(untrained, "resumed")
    assert torch.equal(pooled_row(untrained), pooled_row(ctx))
    assert all(torch.equal(row, rows(ctx)[name]) for name, row in rows(untrained).items())
    names = [n for e in happened(untrained, "models_finished") for n in e["models"]]
    assert sorted(names) == ["FPT.m0", "VCB.m0", "pool.m0"], "what is finished is trained once"


def test_every_fold_has_a_pool_of_its_own(tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", WALK, checkpoint_epochs=1)
    run_stage(ctx, "features")
    killed(ctx, "walk_forward", lambda: len(happened(ctx, "checkpoint")) > 0)
    run_stage(ctx, "walk_forward")
    pools = [pooled_row(ctx, "walk_forward", f"fold-{fold}") for fold in (1, 2)]
    assert not torch.equal(*pools)
    through = context(tmp_path / "through", WALK)
    run_stage(through, "walk_forward")
    folder = Path("models", "fold-2", "FPT.m0.safetensors")
    ends = [load_model(c.stage("walk_forward") / folder).row for c in (ctx, through)]
    assert torch.equal(*ends)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two teams need two CPUs")
def test_teams_train_the_pool_and_then_what_starts_from_it(
    ctx: Context, untrained: Context
) -> None:
    teams = context(untrained.workspace.path, POOLED, teams=2)
    run_stage(teams, "train")
    assert len(happened(teams, "team_started")) == 4
    for name, row in rows(teams).items():
        torch.testing.assert_close(row, rows(ctx)[name], rtol=0, atol=2e-4)


def test_ranking_keeps_sessions_together_and_changes_the_pool(ctx: Context, tmp_path: Path) -> None:
    other = context(tmp_path / "w", changed(ranking_weight=1.0))
    run_stage(other, "train")
    assert (pooled_row(other) - pooled_row(ctx)).abs().max() > 1e-3
    fleet = Fleet(other, [ModelId(POOL, 0)])
    data = Worker(fleet, open_watch(other, 2**40), lambda *_: None)._data
    rows, weight = data.epoch_batches(fleet.wanted, 0, 32, 0, by_session=True)
    ends = rows.flatten()[weight.flatten() > 0].numpy()
    assert np.array_equal(np.sort(ends), np.sort(data.train[POOL]))
    day = other.panel.session[ends]
    assert (np.diff(day) != 0).sum() == len(np.unique(day)) - 1, "a session is torn apart"
    assert (np.diff(day) < 0).any(), "sessions are not shuffled"


def test_one_scale_for_all_is_in_every_models_file(tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", changed(scaling="pooled"))
    run_stage(ctx, "train")
    one, other = (
        json.loads(p.read_text())["scaler"]
        for p in sorted((ctx.stage("train") / "models").glob("*.json"))
    )
    assert one["mean"] == other["mean"]
    assert one["std"] == other["std"]
    assert one["target_scale"] != other["target_scale"]


def test_the_epoch_with_the_best_rank_ic_is_kept(tmp_path: Path) -> None:
    """What training chose by is the RankIC of the forecasts that the kept weights make."""
    names = ("ACB", "FPT", "HPG", "MBB", "SSI", "VCB")
    spec = changed(criterion="rank_ic", ranking_weight=1.0, epochs=4, fine_tune=False)
    ctx = context(tmp_path / "w", spec.model_copy(update={"symbols": names}))
    run_stage(ctx, "train")
    pool = load_model(ctx.stage("train") / "pretrain" / "models" / "pool.m0.safetensors")
    models = load_models(ctx.stage("train") / "models", names)
    ends = {w.symbol: w.validation for w in ctx.windows}
    said = with_outcomes(predict(models, ctx.panel, ends), ctx.panel, ends)
    assert pool.meta["best_score"] == pytest.approx(-point_metrics(said)["rank_ic"], abs=2e-3)
    losses = [loss for _, loss in pool.meta["history"]]
    assert pool.meta["validation_loss"] == losses[pool.meta["best_epoch"]]


def test_huber_is_another_model_that_trains_as_well(ctx: Context, tmp_path: Path) -> None:
    training = POOLED.training.model_copy(update={"loss": "huber"})
    other = context(tmp_path / "w", POOLED.model_copy(update={"training": training}))
    run_stage(other, "train")
    assert not torch.equal(pooled_row(other), pooled_row(ctx))
    pool = load_model(other.stage("train") / "pretrain" / "models" / "pool.m0.safetensors")
    (first, _), (second, _) = pool.meta["history"]
    assert second < first


def test_with_an_embedding_symbols_start_from_different_weights(tmp_path: Path) -> None:
    """Of the pool's weights only the input bias is a symbol's own."""
    ctx = context(tmp_path / "w", changed(embedding="symbol", fine_tune=False))
    run_stage(ctx, "train")
    pool = load_model(ctx.stage("train") / "pretrain" / "models" / "pool.m0.safetensors")
    models = [load_model(p) for p in (ctx.stage("train") / "models").glob("*.safetensors")]
    assert {m.shape.features for m in models} == {pool.shape.features - 2}
    one, other = (m.shape.views(m.row.unsqueeze(0)) for m in models)
    assert [name for name in one if not torch.equal(one[name], other[name])] == ["input.bias"]
    run_stage(ctx, "evaluate")


@pytest.mark.slow
def test_compiled_kernels_take_the_pool_its_ranking_and_the_other_loss(tmp_path: Path) -> None:
    training = POOLED.training.model_copy(update={"loss": "huber"})
    spec = changed(ranking_weight=1.0, embedding="exchange").model_copy(
        update={"training": training}
    )
    found = []
    for compiled in (False, True):
        ctx = context(tmp_path / str(compiled), spec, compiled=compiled)
        run_stage(ctx, "train")
        assert ctx.profile.compile is compiled
        found.append(pooled_row(ctx))
    torch.testing.assert_close(*found, rtol=0, atol=2e-4)
