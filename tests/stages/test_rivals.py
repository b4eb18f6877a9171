"""Rivals of a walk-forward: made once, the same whoever made them, and again if damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.stages.conftest import SPEC, context, happened
from vnquant import manifest
from vnquant.evaluation import baselines, boosting
from vnquant.features.windows import fit_scaler
from vnquant.spec import EvaluationSpec, FoldSpec, RunSpec, WalkForwardSpec
from vnquant.stages import rivals, run_stage
from vnquant.stages.context import Context

FOLDS = (
    FoldSpec(validation_start="2020-06-01", test_start="2021-06-01", test_end="2022-06-01"),
    FoldSpec(validation_start="2021-06-01", test_start="2022-06-01"),
)
WALK: RunSpec = SPEC.model_copy(update={"walk_forward": WalkForwardSpec(folds=FOLDS)})


def changed(**parts: Any) -> RunSpec:
    return WALK.model_copy(update=parts)


def prepared(path: Path, spec: RunSpec = WALK) -> tuple[Context, rivals.Tables]:
    """A run with features only, and its rivals: nothing needs to be trained for them."""
    ctx = context(path, spec)
    run_stage(ctx, "features")
    return ctx, rivals.of(ctx, ctx.folds)


def kept(ctx: Context) -> bool:
    return bool(happened(ctx, "rivals")[-1]["kept"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rivals") / "w"


@pytest.fixture(scope="module")
def made(place: Path) -> tuple[Context, rivals.Tables]:
    ctx, tables = prepared(place)
    assert not kept(ctx)
    return ctx, tables


def same(one: rivals.Tables, other: rivals.Tables) -> None:
    assert list(one) == list(other)
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, other[name], check_exact=True)


def test_they_are_the_baselines_of_every_fold(made: tuple[Context, rivals.Tables]) -> None:
    ctx, tables = made
    assert len(tables) == (7 if boosting.available() else 4)
    for fold, windows in ctx.folds.items():
        ends = {w.symbol: w.test for w in windows}
        scalers = {w.symbol: fit_scaler(ctx.panel, w) for w in windows}
        given = (ctx.panel, windows, scalers, ends, ctx.spec)
        for name, expected in {**baselines.compare(*given), **boosting.compare(*given)}.items():
            found = tables[name][tables[name]["fold"] == fold].drop(columns="fold")
            pd.testing.assert_frame_equal(
                found.reset_index(drop=True), expected, check_exact=True, check_dtype=False
            )


@pytest.mark.parametrize(
    "parts",
    [
        {"training": SPEC.training.model_copy(update={"epochs": 7, "learning_rate": 1e-3})},
        {"model": SPEC.model.model_copy(update={"d_model": 32})},
        {"evaluation": EvaluationSpec(bootstrap_samples=200)},
    ],
)
def test_how_the_model_is_trained_makes_no_others(
    parts: dict[str, Any], place: Path, made: tuple[Context, rivals.Tables]
) -> None:
    ctx, tables = prepared(place, changed(**parts))
    assert kept(ctx)
    same(tables, made[1])


@pytest.mark.parametrize(
    "parts",
    [
        {"evaluation": EvaluationSpec(ridge_alpha=1.0)},
        {"windows": SPEC.windows.model_copy(update={"lookback": 30})},
        {"walk_forward": WalkForwardSpec(folds=FOLDS, train_sessions=400)},
        {"walk_forward": WalkForwardSpec(folds=FOLDS[:1])},
        {"symbols": ("FPT", "HPG")},
    ],
)
def test_what_decides_them_makes_others(
    parts: dict[str, Any], place: Path, made: tuple[Context, rivals.Tables]
) -> None:
    ctx, tables = prepared(place, changed(**parts))
    assert not kept(ctx)
    assert not tables["ridge_pooled"].equals(made[1]["ridge_pooled"])


def test_the_seed_is_one_of_lightgbm_only(
    place: Path, made: tuple[Context, rivals.Tables], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded = changed(training=SPEC.training.model_copy(update={"seed": 9}))
    if boosting.available():
        ctx, tables = prepared(place, seeded)
        assert not kept(ctx)
        assert not tables["lightgbm_pooled"].equals(made[1]["lightgbm_pooled"])
    monkeypatch.setattr(boosting, "available", lambda: False)
    prepared(place)
    assert kept(prepared(place, seeded)[0])


def test_of_other_symbols_and_other_code_they_are_others(
    place: Path, made: tuple[Context, rivals.Tables], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, _ = made
    fewer = {fold: windows[:1] for fold, windows in ctx.folds.items()}
    assert set(rivals.of(ctx, fewer)["ridge_pooled"]["symbol"]) == {"FPT"}
    assert not kept(ctx)
    monkeypatch.setattr(manifest, "source_digest", lambda: "of a later version")
    rivals.of(ctx, ctx.folds)
    assert not kept(ctx)


@pytest.mark.parametrize("end", ["parquet", "json"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_file_is_made_again(
    end: str, content: bytes | None, made: tuple[Context, rivals.Tables]
) -> None:
    ctx, tables = made
    rivals.of(ctx, ctx.folds)
    digest = happened(ctx, "rivals")[-1]["digest"]
    path = ctx.workspace.path / "rivals" / f"{digest}.{end}"
    path.unlink() if content is None else path.write_bytes(content)
    same(rivals.of(ctx, ctx.folds), tables)
    assert not kept(ctx)
    same(rivals.of(ctx, ctx.folds), tables)
    assert kept(ctx)
