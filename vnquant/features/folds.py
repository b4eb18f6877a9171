"""Folds of a walk-forward: their dates from a calendar, and their windows from a panel.

Every fold is split as `vnquant.features.windows` splits a run, with the same purge and embargo;
then its training part may be cut to the newest sessions, and its test part ends where it is told.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vnquant.errors import UsageError
from vnquant.features.panel import Panel
from vnquant.features.windows import Windows, first_session, split
from vnquant.spec import FoldSpec, WalkForwardSpec, WindowSpec

Calendar = npt.NDArray[np.datetime64]


def evenly_spaced(calendar: Calendar, count: int, test_sessions: int) -> list[dt.date]:
    """The first test session of ``count`` folds that end with the calendar, oldest first.

    Raises:
        UsageError: there are not that many sessions.
    """
    first = len(calendar) - count * test_sessions
    if first < 0:
        raise UsageError(
            f"{count} folds of {test_sessions} sessions do not fit into {len(calendar)} sessions",
            where="folds",
            fix="ask for fewer or shorter folds",
        )
    return [_day(calendar[i]) for i in range(first, len(calendar), test_sessions)]


def from_cutoffs(
    calendar: Calendar, cutoffs: Sequence[dt.date], validation_sessions: int
) -> tuple[FoldSpec, ...]:
    """One fold for each cutoff, judged from there to the next one.

    Args:
        calendar: every session, datetime64[D], sorted.
        cutoffs: first dates of the test parts, in any order.
        validation_sessions: sessions before a cutoff that choose the best epoch.

    Raises:
        UsageError: a cutoff leaves nothing to train on, or nothing to judge.
    """
    days = sorted(set(cutoffs))
    folds = []
    for day, end in pairwise([*days, None]):
        assert day is not None
        place = int(np.searchsorted(calendar, np.datetime64(day, "D")))
        if not validation_sessions < place < len(calendar):
            raise UsageError(
                f"{place} sessions are before {day} and {len(calendar) - place} after it; "
                f"validation alone takes {validation_sessions}",
                where="cutoff",
                fix="choose other cutoffs, fewer folds, or a longer history",
            )
        begin = _day(calendar[place - validation_sessions])
        folds.append(FoldSpec(validation_start=begin, test_start=day, test_end=end))
    return tuple(folds)


def split_folds(panel: Panel, base: WindowSpec, spec: WalkForwardSpec) -> list[list[Windows]]:
    """The windows of every symbol in every fold; lookback, purge and embargo are ``base``'s.

    Raises:
        UsageError: the panel was built for another horizon.
    """
    return [_split_fold(panel, base, fold, spec.train_sessions) for fold in spec.folds]


def _split_fold(
    panel: Panel, base: WindowSpec, fold: FoldSpec, train_sessions: int | None
) -> list[Windows]:
    dates = {"validation_start": fold.validation_start, "test_start": fold.test_start}
    windows = split(panel, base.model_copy(update=dates))
    if train_sessions is not None:
        # The last session that may end a training window, and its predecessors.
        last = first_session(panel, fold.validation_start) - 1 - base.purge
        windows = [
            replace(w, train=w.train[panel.session[w.train] > last - train_sessions])
            for w in windows
        ]
    if fold.test_end is not None:
        end = first_session(panel, fold.test_end)
        windows = [replace(w, test=w.test[panel.session[w.test] < end]) for w in windows]
    return windows


def _day(value: np.datetime64) -> dt.date:
    day: dt.date = value.astype("datetime64[D]").astype(object)
    return day
