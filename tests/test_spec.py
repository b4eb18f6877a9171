"""The spec's identity: one digest, whatever the order of keys or symbols; golden file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vnquant.errors import UsageError
from vnquant.spec import RunSpec, load_spec, parse_spec

GOLDEN = Path(__file__).parent / "golden" / "spec-v1.json"
GOLDEN_DIGEST = "9952887836db5834e9d9f06f15c6fb3f1180af2c1d1a0979620a7d387c3bb24a"


DATES = {"validation_start": "2021-01-01", "test_start": "2022-01-01"}


def minimal(**more: object) -> RunSpec:
    return RunSpec(**{"symbols": ["VCB", "fpt"], "windows": DATES, **more})


def test_golden_spec_keeps_its_digest() -> None:
    """A change here orphans every run made before: give the schema a new version instead."""
    assert load_spec(GOLDEN).digest == GOLDEN_DIGEST


def test_a_later_part_changes_the_digest_only_when_it_is_used() -> None:
    assert minimal(backtest={"top_k": 10}).digest == minimal().digest
    assert minimal(backtest={"top_k": 3}).digest != minimal().digest


@pytest.mark.parametrize(
    ("default", "used"),
    [
        ({"training": {"loss": "gaussian"}}, {"training": {"loss": "huber"}}),
        ({"pretrain": None}, {"pretrain": {}}),
        ({"ensemble": {"weights": "equal"}}, {"ensemble": {"weights": "stacked"}}),
        ({"windows": {**DATES, "half_life": None}}, {"windows": {**DATES, "half_life": 10}}),
    ],
)
def test_what_came_for_better_forecasts_changes_the_digest_only_when_it_is_used(
    default: dict[str, object], used: dict[str, object]
) -> None:
    assert minimal(**default).digest == minimal().digest
    spec = minimal(**used)
    assert spec.digest != minimal().digest
    assert parse_spec(spec.canonical_json()) == spec


def test_pretraining_has_its_own_pace_and_shares_the_rest() -> None:
    spec = minimal(training={"seed": 7, "epochs": 3}, pretrain={"epochs": 4, "batch_size": 64})
    assert spec.pretrain is not None
    own = spec.pretrain.applied_to(spec.training)
    assert (own.seed, own.epochs, own.batch_size) == (7, 4, 64)
    assert own.weight_decay == spec.training.weight_decay


def test_digest_ignores_order_and_spelling_but_nothing_else() -> None:
    one = minimal()
    assert one.digest == minimal(symbols=["FPT", "VCB", "VCB"]).digest
    shuffled = dict(reversed(list(json.loads(one.canonical_json()).items())))
    assert parse_spec(json.dumps(shuffled)).digest == one.digest
    assert one.digest != minimal(training={"seed": 1}).digest
    assert one.digest != minimal(symbols=["FPT"]).digest


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epoch": 3}, "epoch"),
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"windows": {"validation_start": "2022-01-01", "test_start": "2021-01-01"}}, "windows"),
        ({"symbols": ["F P T"]}, "symbols"),
        ({"model": {"d_model": 100, "heads": 8}}, "model"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate"),
    ],
)
def test_a_bad_spec_names_its_field(change: dict[str, object], field: str) -> None:
    text = json.dumps({**json.loads(minimal().canonical_json()), **change})
    with pytest.raises(UsageError, match=field) as caught:
        parse_spec(text, where="run.json")
    assert caught.value.exit_code == 2


def test_purge_must_cover_the_horizon() -> None:
    with pytest.raises(ValueError, match="overlap the next part"):
        minimal(windows={"validation_start": "2021-01-01", "test_start": "2022-01-01", "purge": 4})


FOLD = {"validation_start": "2020-01-01", "test_start": "2021-01-01"}


def test_folds_are_part_of_the_digest_only_where_there_are_some() -> None:
    plain, walk = minimal(), minimal(walk_forward={"folds": [FOLD]})
    assert "walk_forward" not in plain.canonical_json()
    assert walk.digest != plain.digest
    assert walk.digest != minimal(walk_forward={"folds": [FOLD], "train_sessions": 500}).digest
    for spec in (plain, walk):
        assert parse_spec(spec.canonical_json()) == spec
        assert parse_spec(json.dumps(spec.model_dump(mode="json"))) == spec


@pytest.mark.parametrize(
    "wrong", [{"test_start": "2020-01-01"}, {"test_end": "2021-01-01"}, {"test": "2021-01-01"}]
)
def test_a_fold_out_of_order_names_its_field(wrong: dict[str, str]) -> None:
    content = json.loads(minimal().canonical_json())
    content["walk_forward"] = {"folds": [FOLD | wrong]}
    with pytest.raises(UsageError, match=r"walk_forward\.folds\.0"):
        parse_spec(json.dumps(content))
