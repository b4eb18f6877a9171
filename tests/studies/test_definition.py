"""Studies as files: what is shipped fits, and what does not fit is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vnquant.cli_plan import HALF_LIFE
from vnquant.errors import UsageError
from vnquant.spec import POOLED, PRESETS, RunSpec
from vnquant.studies.definition import SEARCHABLE, Study, load, nested, shipped, spec_of
from vnquant.studies.trials import folder_of, planned, repeated
from vnquant.workspace import Workspace


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", shipped())
def test_every_shipped_study_fits_every_preset(name: str, preset: str, base: RunSpec) -> None:
    study = load(name)
    trials = planned(study, base.model_copy(update={"model": PRESETS[preset]}))
    assert trials[0].name == study.variants[0].name
    assert len(trials) >= min(2, len(study.variants))
    for parameter in study.search.parameters if study.search else ():
        for value in parameter.choices or (parameter.low, parameter.high):
            spec_of(base, nested(parameter.field, value), "here")


def test_overrides_go_as_deep_as_they_say(base: RunSpec) -> None:
    spec = spec_of(base, {"training": {"epochs": 7}, "model": {"d_model": 32}}, "here")
    assert (spec.training.epochs, spec.model.d_model) == (7, 32)
    assert spec.training.seed == base.training.seed
    assert spec.model.members == base.model.members
    assert spec_of(base, {}, "here") == base
    two = spec_of(base, {"model": {"members": [{"layers": 1, "dropout": 0.1}] * 2}}, "here")
    deep = spec_of(two, nested("model.members.*.layers", 3), "here")
    assert [(m.layers, m.dropout) for m in deep.model.members] == [(3, 0.1), (3, 0.1)]


def test_what_comes_to_the_same_is_one_trial(base: RunSpec) -> None:
    same = {"training": {"epochs": base.training.epochs}}
    variants = [{"name": "a"}, {"name": "b", "overrides": same}, {"name": "c", "reading": "int8"}]
    study = Study.model_validate({"name": "x", "question": "?", "variants": variants})
    assert [t.name for t in planned(study, base)] == ["a", "c"]


def test_repeats_are_the_first_variant_with_the_next_seeds(base: RunSpec) -> None:
    variants = [{"name": "a", "overrides": {"training": {"seed": 7, "epochs": 9}}}, {"name": "b"}]
    content = {"name": "x", "question": "?", "variants": variants, "repeats": 2}
    again = repeated(Study.model_validate(content), base)
    assert [t.name for t in again] == ["a, seed 8", "a, seed 9"]
    assert [t.spec.training.seed for t in again] == [8, 9]
    (first, _) = planned(Study.model_validate(content), base)
    back = spec_of(again[0].spec, {"training": {"seed": 7}}, "here")
    assert back == first.spec, "nothing but the seed is another"


def test_what_is_trained_is_repeated_in_every_shipped_study() -> None:
    for study in shipped().values():
        trains = study.search is not None or any(v.overrides for v in study.variants)
        assert study.repeats == (1 if trains else 0), study.name


def test_other_features_leave_the_snapshot_open(base: RunSpec) -> None:
    data = base.data.model_copy(update={"snapshot": "0" * 64})
    given = base.model_copy(update={"data": data})
    assert spec_of(given, {"training": {"epochs": 2}}, "here").data.snapshot == "0" * 64
    assert spec_of(given, {"features": {"name": "v2"}}, "here").data.snapshot is None


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"training": {"epoch": 3}}, "training.epoch"),
        ({"windows": {"purge": 1}}, "shorter than the horizon"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_the_spec_does_not_take_is_named(
    overrides: dict[str, object], says: str, base: RunSpec
) -> None:
    with pytest.raises(UsageError, match=says) as error:
        spec_of(base, overrides, "study x, variant y")
    assert error.value.where == "study x, variant y"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "JSON"),
        ('{"name": "a", "question": "?", "variants": []}', "variants"),
        ('{"name": "A b", "question": "?", "variants": [{"name": "x"}]}', "name"),
        ('{"name": "a", "question": "?", "variants": [{"name": "x"}, {"name": "x"}]}', "one name"),
        (
            '{"name": "a", "question": "?", "variants": [{"name": "x"}],'
            ' "search": {"parameters": [{"field": "training.epochs", "low": 3}]}}',
            "low < high, or choices",
        ),
        (
            '{"name": "a", "question": "?", "variants": [{"name": "x"}],'
            ' "cheaper": {"cost": "forecast_seconds", "margin": 0.1}}',
            "nothing measures the forecast_seconds of x",
        ),
    ],
)
def test_a_file_that_is_no_study_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        load(str(path))


@pytest.mark.parametrize(
    "field",
    [
        *("training.loss", "training.direction_weight", "training.seed", "training"),
        *("training.min_train_windows", "windows.horizon", "windows.purge", "windows"),
        *("pretrain.ranking_weight", "walk_forward.train_sessions", "symbols", "data.start"),
        *("ensemble.weights", "gate.min_accuracy", "modelling"),
    ],
)
def test_a_search_over_what_the_loss_cannot_compare_is_refused(field: str, tmp_path: Path) -> None:
    content = {"parameters": [{"field": field, "choices": [1, 2]}]}
    variants = [{"name": "x"}]
    own = {"name": "a", "question": "?", "variants": variants, "search": content}
    path = tmp_path / "own.json"
    path.write_text(json.dumps(own))
    with pytest.raises(UsageError, match=f"cannot compare trials that differ in {field}: make"):
        load(str(path))


def test_what_a_search_may_change_is_in_the_spec(base: RunSpec) -> None:
    spec = spec_of(base, {"pretrain": {}}, "here").model_dump()
    for field in SEARCHABLE:
        part: Any = spec
        for name in field.split("."):
            part = part[name]


def test_unknown_names_and_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no study nosuch") as error:
        load("nosuch")
    assert "lookback" in error.value.fix
    with pytest.raises(UsageError, match="cannot be read"):
        load(str(tmp_path / "none.json"))


def test_another_question_or_base_has_another_folder(
    study: Study, base: RunSpec, tmp_path: Path
) -> None:
    place = Workspace(tmp_path)
    other = study.model_copy(update={"question": "Which?"})
    later = spec_of(base, {"training": {"epochs": 9}}, "here")
    folders = {folder_of(place, s, b) for s in (study, other) for b in (base, later)}
    assert len(folders) == 4
    assert folder_of(place, study, base) in folders


def test_words_about_training_mean_the_phase_that_there_is(base: RunSpec) -> None:
    """Where pooled models are used as they are, nothing else is trained."""
    pooled = base.model_copy(update={"pretrain": POOLED})
    given = {"training": {"learning_rate": 0.01, "seed": 3}}
    spec = spec_of(pooled, given, "here")
    assert spec.pretrain == POOLED.model_copy(update={"learning_rate": 0.01})
    assert spec.training.seed == 3
    assert spec_of(pooled, {}, "here") == pooled
    tuned = POOLED.model_copy(update={"fine_tune": True})
    assert spec_of(base.model_copy(update={"pretrain": tuned}), given, "here").pretrain == tuned
    named = spec_of(pooled, {**given, "pretrain": {"learning_rate": 0.02}}, "here").pretrain
    assert named is not None
    assert named.learning_rate == 0.02
    assert spec_of(pooled, {**given, "pretrain": None}, "here").pretrain is None


def test_what_the_shipped_studies_call_pooled_is_the_recipe_of_today(base: RunSpec) -> None:
    """JSON repeats it, so that a study means the same beside any base spec."""
    for name, variant in (("forecasts", 0), ("settings", 0), ("pooling", 1)):
        spec = spec_of(base, load(name).variants[variant].overrides, name)
        assert (spec.pretrain, spec.windows.half_life) == (POOLED, HALF_LIFE), name
        alone = [v for v in load(name).variants if v.name == "per symbol"]
        assert [spec_of(base, v.overrides, name).windows.half_life for v in alone] == [None], name
    assert load("recency").variants[0].overrides == {"windows": {"half_life": HALF_LIFE}}
