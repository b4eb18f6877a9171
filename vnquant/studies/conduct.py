"""A study from its plan to its result.

A search must not look at the windows that judge what it finds. The validation part of a later fold
is judged in an earlier one, so a proposal is trained on the first fold alone, whose validation part
comes before everything that is judged, and its validation loss is all that the search is told. The
best proposal is then carried out on all folds and compared as a variant is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vnquant.spec import RunSpec
from vnquant.studies import result, search, trials
from vnquant.studies.definition import Search, Study, spec_of
from vnquant.studies.engines import Engine
from vnquant.studies.trials import Trial
from vnquant.workspace import Workspace


def carry_out(
    study: Study, base: RunSpec, folder: Path, workspace: Workspace, work: Engine
) -> dict[str, Any]:
    """What a study has found, see `vnquant.studies.result.build`; finished trials are only read.

    Args:
        folder: of the study. work: carries out trials.

    Raises:
        UsageError: a variant or a proposal does not fit the spec, or Optuna is not installed.
    """
    wanted, repeats = trials.planned(study, base), trials.repeated(study, base)
    rows = work([*wanted, *repeats])
    rows, again = rows[: len(wanted)], rows[len(wanted) :]
    found: search.Found = []
    if study.search is not None:
        found = _searched(study.search, base, folder, work, f"study {study.name}")
        chosen = search.best(found)
        if chosen is not None:
            winner = _trial(chosen, base, f"study {study.name}")
            if winner.key not in {trial.key for trial in wanted}:
                wanted.append(winner)
                rows += work([winner])
    tables = {
        trial.name: trials.forecasts(folder, workspace, trial)
        for trial, row in zip([*wanted, *repeats], [*rows, *again], strict=True)
        if "failed" not in row
    }
    proposed = [row for _, row in found]
    return result.build(study, rows, tables, base.training.seed, again, proposed)


def _searched(asked: Search, base: RunSpec, folder: Path, work: Engine, where: str) -> search.Found:
    alone = first_fold(base)

    def attempt(proposed: list[search.Proposal]) -> list[trials.Row]:
        return work([_trial(p, alone, where) for p in proposed])

    return search.carry_out(folder, asked, attempt, work.width)


def first_fold(base: RunSpec) -> RunSpec:
    """The spec with no fold but the first, to which its own windows belong then."""
    assert base.walk_forward is not None  # a study's base has folds
    first = base.walk_forward.folds[0]
    dates = {"validation_start": first.validation_start, "test_start": first.test_start}
    return base.model_copy(
        update={
            "windows": base.windows.model_copy(update=dates),
            "walk_forward": base.walk_forward.model_copy(update={"folds": (first,)}),
        }
    )


def _trial(proposal: search.Proposal, base: RunSpec, where: str) -> Trial:
    spec = spec_of(base, proposal.overrides, f"{where}, {proposal.name}")
    return Trial(proposal.name, spec)
