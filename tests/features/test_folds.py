"""Folds: their dates, expanding and rolling training parts, and what no two of them share."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from vnquant.errors import UsageError
from vnquant.evaluation.leaks import overlapping
from vnquant.features.folds import evenly_spaced, from_cutoffs, split_folds
from vnquant.features.panel import Panel
from vnquant.features.windows import split
from vnquant.spec import FoldSpec, WalkForwardSpec, WindowSpec

MakePanel = Callable[..., Panel]
FOLDS = (
    FoldSpec(validation_start="2015-08-03", test_start="2015-10-01", test_end="2015-12-01"),
    FoldSpec(validation_start="2015-10-01", test_start="2015-12-01"),
)


@pytest.fixture
def panel(make_panel: MakePanel) -> Panel:
    return make_panel([320, 300], drop=0.02)


def test_a_fold_is_split_like_a_run_and_ends_where_it_is_told(
    panel: Panel, spec: WindowSpec
) -> None:
    first, last = split_folds(panel, spec, WalkForwardSpec(folds=FOLDS))
    for fold, found in zip(FOLDS, (first, last), strict=True):
        dates = {k: getattr(fold, k) for k in ("validation_start", "test_start")}
        for w, whole in zip(found, split(panel, spec.model_copy(update=dates)), strict=True):
            np.testing.assert_array_equal(w.train, whole.train)
            np.testing.assert_array_equal(w.validation, whole.validation)
            end = np.datetime64(fold.test_end or "2100-01-01")
            np.testing.assert_array_equal(w.test, whole.test[panel.dates[whole.test] < end])
        assert overlapping(panel, found) == []
    for a, b in zip(first, last, strict=True):
        assert set(a.train) < set(b.train), "the training part expands"
        assert len(a.test)
        assert not set(a.test) & set(b.test), "no session is judged twice"


@pytest.mark.parametrize("sessions", [1, 20, 10_000])
def test_a_rolling_fold_trains_on_the_newest_sessions(
    panel: Panel, spec: WindowSpec, sessions: int
) -> None:
    expanding = split_folds(panel, spec, WalkForwardSpec(folds=FOLDS))
    rolling = split_folds(panel, spec, WalkForwardSpec(folds=FOLDS, train_sessions=sessions))
    for fold, whole, cut in zip(FOLDS, expanding, rolling, strict=True):
        begin = int(np.searchsorted(panel.calendar, np.datetime64(fold.validation_start)))
        last = begin - 1 - spec.purge
        for w, c in zip(whole, cut, strict=True):
            wanted = [r for r in w.train if last - sessions < panel.session[r] <= last]
            np.testing.assert_array_equal(c.train, wanted)
            np.testing.assert_array_equal(c.validation, w.validation)
            np.testing.assert_array_equal(c.test, w.test)


def test_cutoffs_become_folds_that_follow_each_other() -> None:
    calendar = np.arange("2020-01-01", "2021-01-01", dtype="datetime64[D]")
    days = evenly_spaced(calendar, 3, 50)
    assert days == [dt.date(2020, 8, 4), dt.date(2020, 9, 23), dt.date(2020, 11, 12)]
    folds = from_cutoffs(calendar, days[::-1], 20)
    assert [f.test_start for f in folds] == days
    assert [f.test_end for f in folds] == [*days[1:], None]
    assert {(f.test_start - f.validation_start).days for f in folds} == {20}
    WalkForwardSpec(folds=folds)


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: evenly_spaced(c, 8, 50),
        lambda c: from_cutoffs(c, [dt.date(2020, 1, 15)], 20),
        lambda c: from_cutoffs(c, [dt.date(2021, 6, 1)], 20),
    ],
)
def test_folds_without_room_are_refused(ask: Callable[..., object]) -> None:
    calendar = np.arange("2020-01-01", "2021-01-01", dtype="datetime64[D]")
    with pytest.raises(UsageError) as caught:
        ask(calendar)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "folds",
    [
        (FOLDS[1], FOLDS[0]),
        (FOLDS[0], FOLDS[0].model_copy(update={"test_start": dt.date(2015, 11, 30)})),
        (),
    ],
)
def test_a_session_is_never_judged_twice(folds: tuple[FoldSpec, ...]) -> None:
    with pytest.raises(ValueError, match="folds"):
        WalkForwardSpec(folds=[f.model_dump() for f in folds])
    for earlier, later in pairwise(FOLDS):
        assert earlier.test_end == later.test_start
