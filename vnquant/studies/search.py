"""Trials that a search proposes: Optuna's TPE sampler, its journal in the study's folder.

A search minimises the validation loss, and never sees what judges its result: see
`vnquant.studies.conduct`. The journal is appended to and synced, so a kill loses no finished trial.
One that was under way is proposed again with the same values, and its run goes on from its newest
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vnquant.errors import UsageError
from vnquant.studies.definition import Overrides, Parameter, Search, merged, nested

Values = dict[str, Any]
Row = dict[str, Any]
JOURNAL = "optuna.journal"
LOSS = "validation_loss"


class Proposal(NamedTuple):
    """Values that are to be tried."""

    name: str
    overrides: Overrides


Attempt = Callable[[list[Proposal]], list[Row]]
"""Carries out proposals and returns their rows."""
Found = list[tuple[Proposal, Row]]


def carry_out(folder: Path, search: Search, attempt: Attempt, width: int = 1) -> Found:
    """Every proposal of the search with its row, those of earlier calls too, oldest first.

    Args:
        width: trials that are proposed at a time.

    Raises:
        UsageError: Optuna is not installed.
    """
    optuna = _library()
    study = _opened(folder)
    states = optuna.trial.TrialState
    for stale in study.get_trials(states=(states.RUNNING,)):
        study.enqueue_trial(stale.params)
        study.tell(stale.number, state=states.FAIL)
    over = study.get_trials(states=(states.COMPLETE, states.PRUNED))
    known = [_described(search, t.params) for t in over]
    found = list(zip(known, attempt(known), strict=True))
    while len(found) < search.trials:
        # Seeded by what is known: a search that was killed proposes what it would have proposed,
        # and does not begin its random numbers again.
        study.sampler = optuna.samplers.TPESampler(seed=search.seed + len(found))
        asked = [study.ask() for _ in range(min(width, search.trials - len(found)))]
        values = [{p.field: _suggested(t, p) for p in search.parameters} for t in asked]
        proposed = [_described(search, v) for v in values]
        rows = attempt(proposed)
        for trial, row in zip(asked, rows, strict=True):
            loss = row.get(LOSS)
            # Undefined, or the prices cannot fill it: not worth another look.
            state = states.PRUNED if loss is None else states.COMPLETE
            study.tell(trial, None if loss is None else float(loss), state=state)
        found += zip(proposed, rows, strict=True)
    return found


def best(found: Sequence[tuple[Proposal, Row]]) -> Proposal | None:
    """The proposal with the lowest validation loss, the oldest of equals; None if none has one."""
    known = [(row[LOSS], proposal) for proposal, row in found if row.get(LOSS) is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def _library() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UsageError(
            "a search needs Optuna, which is not installed",
            where="vnquant study",
            fix="pip install 'vnquant[study]', or use a study without a search",
        ) from error
    return optuna


def _opened(folder: Path) -> Any:
    optuna = _library()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name="search",
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        direction="minimize",
        load_if_exists=True,
    )


def _suggested(trial: Any, p: Parameter) -> Any:
    if p.choices is not None:
        return trial.suggest_categorical(p.field, p.choices)
    assert p.low is not None
    assert p.high is not None
    if not p.log and p.low.is_integer() and p.high.is_integer():
        return trial.suggest_int(p.field, int(p.low), int(p.high))
    return trial.suggest_float(p.field, p.low, p.high, log=p.log)


def _described(search: Search, values: Values) -> Proposal:
    overrides: Overrides = {}
    for p in search.parameters:
        overrides = merged(overrides, nested(p.field, values[p.field]))
    return Proposal(_name(values), overrides)


def _name(values: Values) -> str:
    shown = (f"{k.rpartition('.')[2]} {v:.3g}" if isinstance(v, float) else
             f"{k.rpartition('.')[2]} {v}" for k, v in values.items())  # fmt: skip
    return ", ".join(shown)
