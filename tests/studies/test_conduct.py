"""A whole study with trials that are only pretended: what is asked for, judged and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.studies.test_result import row, table
from vnquant.spec import RunSpec
from vnquant.studies import conduct, trials
from vnquant.studies.definition import Study, spec_of
from vnquant.studies.page import to_markdown
from vnquant.studies.trials import Trial
from vnquant.workspace import Workspace


class Pretended:
    """Rows and forecasts at once; the loss is the weight decay, the skill its opposite."""

    def __init__(self, folder: Path, width: int = 1) -> None:
        self.folder, self.width = folder, width
        self.asked: list[list[Trial]] = []

    def __call__(self, wanted: Sequence[Trial]) -> list[trials.Row]:
        self.asked.append([*wanted])
        return [self._one(trial) for trial in wanted]

    def _one(self, trial: Trial) -> trials.Row:
        decay, own = trial.spec.training.weight_decay, self.folder / "trials" / trial.key
        own.mkdir(parents=True, exist_ok=True)
        table(decay, seed=trial.spec.training.seed).to_parquet(own / trials.FORECASTS)
        return row(trial.name, run=trial.spec.run_id, validation_loss=decay)


SEARCHING = {
    "name": "decay",
    "question": "How much decay?",
    "variants": [
        {"name": "as given"},
        {"name": "0.2", "overrides": {"training": {"weight_decay": 0.2}}},
    ],
    "repeats": 1,
    "search": {
        "parameters": [{"field": "training.weight_decay", "choices": [0.3, 0.5, 0.9]}],
        "trials": 6,
    },
}


def carried_out(content: dict[str, Any], base: RunSpec, path: Path) -> tuple[Any, Pretended]:
    study, folder = Study.model_validate(content), path / "study"
    work = Pretended(folder)
    return conduct.carry_out(study, base, folder, Workspace(path), work), work


def test_without_a_search_variants_and_repeats_are_all(base: RunSpec, tmp_path: Path) -> None:
    content = {k: v for k, v in SEARCHING.items() if k != "search"}
    found, work = carried_out(content, base, tmp_path)
    (asked,) = work.asked
    assert [t.name for t in asked] == ["as given", "0.2", "as given, seed 1"]
    assert [t["name"] for t in found["trials"]] == ["as given", "0.2"]
    assert [t["name"] for t in found["repeats"]] == ["as given, seed 1"]
    assert found["proposed"] == []


def test_of_a_search_only_the_lowest_loss_is_judged(base: RunSpec, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `study` is not installed")
    found, work = carried_out(SEARCHING, base, tmp_path)
    *_, (winner,) = work.asked
    tried = [t.spec.training.weight_decay for asked in work.asked[1:-1] for t in asked]
    least = min(tried)
    assert least < max(tried), "more decay has more skill here, and is not looked at"
    assert winner.spec == spec_of(base, {"training": {"weight_decay": least}}, "here")
    assert [t["name"] for t in found["trials"]] == ["as given", "0.2", f"weight_decay {least}"]
    assert all("adjusted_p" in t["against_first"] for t in found["trials"][1:])
    losses = [p["validation_loss"] for p in found["proposed"]]
    assert len(losses) == 6
    assert losses == sorted(losses)
    assert {frozenset(p) for p in found["proposed"]} == {
        frozenset({"name", "validation_loss", "run", "failed"})
    }
    text = to_markdown({**found, "base_digest": "0" * 64, "command": "vnquant study x"})
    assert f"| weight_decay {least} | {least:.5f} | {found['proposed'][0]['run']} |" in text


def test_a_proposal_knows_nothing_of_what_is_judged(base: RunSpec, tmp_path: Path) -> None:
    """Its validation part ends before the first session that any fold judges."""
    pytest.importorskip("optuna", reason="the extra `study` is not installed")
    _, work = carried_out(SEARCHING, base, tmp_path)
    assert base.walk_forward is not None
    judged_from = min(fold.test_start for fold in base.walk_forward.folds)
    proposed = [t for asked in work.asked[1:-1] for t in asked]
    assert len(proposed) == 6
    for trial in proposed:
        assert trial.spec.walk_forward is not None
        (fold,) = trial.spec.walk_forward.folds
        assert fold.test_start <= judged_from
        assert trial.spec.windows.test_start == fold.test_start
        assert trial.spec.windows.validation_start == fold.validation_start


def test_a_proposal_that_is_a_variant_is_not_judged_twice(base: RunSpec, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `study` is not installed")
    parameter = {"field": "training.weight_decay", "choices": [0.2, 0.5]}
    content = {**SEARCHING, "search": {"parameters": [parameter], "trials": 6}}
    found, _ = carried_out(content, base, tmp_path)
    assert found["proposed"][0]["validation_loss"] == 0.2
    assert [t["name"] for t in found["trials"]] == ["as given", "0.2"]


def test_a_search_in_which_everything_failed_judges_the_variants(
    base: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="the extra `study` is not installed")
    honest = Pretended._one

    def failing(self: Pretended, trial: Trial) -> trials.Row:
        bad = trial.name.startswith("weight_decay")
        return {"name": trial.name, "failed": "no window"} if bad else honest(self, trial)

    monkeypatch.setattr(Pretended, "_one", failing)
    found, _ = carried_out(SEARCHING, base, tmp_path)
    assert [t["name"] for t in found["trials"]] == ["as given", "0.2"]
    text = to_markdown({**found, "base_digest": "0" * 64, "command": "vnquant study x"})
    assert text.count("| failed: no window | |") == 6
