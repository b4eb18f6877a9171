"""From the words of ``vnquant walk-forward`` to a RunSpec with folds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vnquant.cli_plan import PLANNED, Job, plan
from vnquant.spec import RunSpec, WalkForwardSpec

FOLDED = (PLANNED - {"validation_start", "test_start"}) | {
    *("count", "test_sessions", "cutoffs", "validation_sessions", "train_sessions")
}
"""The options that are part of the spec; all others say where and how to execute."""


def plan_folds(
    *,
    prices: Path | None,
    symbols: Sequence[str],
    universe: str | None,
    count: int,
    test_sessions: int,
    cutoffs: Sequence[dt.date],
    validation_sessions: int,
    train_sessions: int | None,
    **given: Any,
) -> Job:
    """Read the prices and settle the folds.

    The last fold is the run's own split, so `vnquant run train` on the same spec trains it alone.

    Args:
        count, test_sessions: as many folds of that length up to the last session; ignored where
            ``cutoffs`` are given.
        given: what `vnquant.cli_plan.plan` takes besides.

    Raises:
        UsageError: unknown symbols, or folds that the history has no room for.
        DataError: prices that cannot be used.
    """
    from vnquant.features.folds import evenly_spaced, from_cutoffs
    from vnquant.market.sessions import sessions
    from vnquant.market.universe import chosen_on

    job = plan(
        prices=prices,
        symbols=symbols,
        universe=universe,
        validation_start=None,
        test_start=None,
        **given,
    )
    calendar = sessions(job.raw)
    days = cutoffs or evenly_spaced(calendar, count, test_sessions)
    folds = from_cutoffs(calendar, days, validation_sessions)
    last = {k: getattr(folds[-1], k) for k in ("validation_start", "test_start")}
    content = {
        **job.spec.model_dump(),
        "windows": {**job.spec.windows.model_dump(), **last},
        "walk_forward": WalkForwardSpec(
            folds=folds,
            train_sessions=train_sessions,
            symbols_chosen_on=None if symbols else chosen_on(universe),
        ),
    }
    return Job(RunSpec.model_validate(content), job.raw)
