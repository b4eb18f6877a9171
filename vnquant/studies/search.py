"""Trials that a search proposes: Optuna's TPE sampler, its journal in the study's folder.

The journal is appended to and synced, so a kill loses no finished trial. One that was under way is
proposed again with the same values, and its run goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vnquant.errors import UsageError
from vnquant.studies.definition import LOWER_IS_BETTER, Metric, Parameter, Search, merged, nested

Values = dict[str, Any]
Attempt = Callable[[list[tuple[str, dict[str, Any]]]], list[dict[str, Any]]]
"""Carries out trials, each a name and overrides, and returns their rows."""
JOURNAL = "optuna.journal"


def carry_out(
    folder: Path, search: Search, metric: Metric, attempt: Attempt, width: int = 1
) -> list[dict[str, Any]]:
    """The rows of every trial of the search, those of earlier calls too, oldest first.

    Args:
        width: trials that are proposed at a time.

    Raises:
        UsageError: Optuna is not installed.
    """
    optuna = _library()
    study = _opened(folder, metric)
    states = optuna.trial.TrialState
    for stale in study.get_trials(states=(states.RUNNING,)):
        study.enqueue_trial(stale.params)
        study.tell(stale.number, state=states.FAIL)
    over = study.get_trials(states=(states.COMPLETE, states.PRUNED))
    rows = attempt([_described(search, t.params) for t in over])
    while len(rows) < search.trials:
        # Seeded by what is known: a search that was killed proposes what it would have proposed,
        # and does not begin its random numbers again.
        study.sampler = optuna.samplers.TPESampler(seed=search.seed + len(rows))
        asked = [study.ask() for _ in range(min(width, search.trials - len(rows)))]
        values = [{p.field: _suggested(t, p) for p in search.parameters} for t in asked]
        new = attempt([_described(search, v) for v in values])
        for trial, row in zip(asked, new, strict=True):
            value = row.get(metric)
            # Undefined, or the prices cannot fill it: not worth another look.
            state = states.PRUNED if value is None else states.COMPLETE
            study.tell(trial, None if value is None else float(value), state=state)
        rows += new
    return rows


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


def _opened(folder: Path, metric: Metric) -> Any:
    optuna = _library()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name="search",
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        direction="minimize" if metric in LOWER_IS_BETTER else "maximize",
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


def _described(search: Search, values: Values) -> tuple[str, dict[str, Any]]:
    overrides: dict[str, Any] = {}
    for p in search.parameters:
        overrides = merged(overrides, nested(p.field, values[p.field]))
    return _name(values), overrides


def _name(values: Values) -> str:
    shown = (f"{k.rpartition('.')[2]} {v:.3g}" if isinstance(v, float) else
             f"{k.rpartition('.')[2]} {v}" for k, v in values.items())  # fmt: skip
    return ", ".join(shown)
