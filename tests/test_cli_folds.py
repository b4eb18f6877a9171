"""The command ``walk-forward``: from words to folds, and the whole job."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_cli import vnquant
from vnquant.argv import normalise
from vnquant.cli_folds import plan_folds
from vnquant.errors import UsageError
from vnquant.market.sessions import sessions
from vnquant.market.universe import VN102_CHOSEN_ON

WORDS: dict[str, Any] = {
    "prices": None,
    "symbols": ("FPT", "VNM"),
    "universe": None,
    "count": 3,
    "test_sessions": 120,
    "cutoffs": (),
    "validation_sessions": 100,
    "train_sessions": None,
    "start": None,
    "end": None,
    "preset": "small",
    **dict.fromkeys(("epochs", "batch_size", "learning_rate", "patience", "seed", "precision")),
}


def test_folds_side_by_side_up_to_the_last_session() -> None:
    job = plan_folds(**WORDS)
    calendar = sessions(job.raw)
    walk = job.spec.walk_forward
    assert walk is not None
    starts = [int(np.searchsorted(calendar, np.datetime64(f.test_start))) for f in walk.folds]
    assert starts == [len(calendar) - 120 * n for n in (3, 2, 1)]
    before = [int(np.searchsorted(calendar, np.datetime64(f.validation_start))) for f in walk.folds]
    assert [s - b for s, b in zip(starts, before, strict=True)] == [100] * 3
    last = walk.folds[-1]
    assert last.test_end is None
    assert job.spec.windows.validation_start == last.validation_start
    assert job.spec.windows.test_start == last.test_start
    assert walk.symbols_chosen_on is None


def test_given_cutoffs_rolling_and_a_list_of_survivors() -> None:
    days = (dt.date(2022, 1, 4), dt.date(2021, 1, 4))
    words = {"symbols": (), "universe": "vn102", "cutoffs": days, "train_sessions": 500}
    walk = plan_folds(**WORDS | words).spec.walk_forward
    assert walk is not None
    assert [f.test_start for f in walk.folds] == sorted(days)
    assert walk.train_sessions == 500
    assert walk.symbols_chosen_on == VN102_CHOSEN_ON


def test_words_after_cutoffs_belong_to_them() -> None:
    given = ["--cutoffs", "2021-01-04", "2022-01-04", "--folds", "2"]
    expected = ["--cutoffs", "2021-01-04", "--cutoffs", "2022-01-04", "--folds", "2"]
    assert normalise(given) == expected


@pytest.mark.parametrize("words", [{"count": 60}, {"cutoffs": (dt.date(2030, 1, 1),)}])
def test_folds_without_room_are_refused(words: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        plan_folds(**WORDS | words)


def test_the_command_trains_judges_and_has_nothing_to_do_again(tmp_path: Path) -> None:
    words = ["walk-forward", "--symbols", "MBB", "VNM", "--preset", "small", "--epochs", "1"]
    more = ["--folds", "2", "--test-sessions", "100", "--validation-sessions", "100"]
    place = ["--workspace", str(tmp_path / "w")]
    # Short training parts: this is about the command.
    done = vnquant(*words, *more, "--train-sessions", "400", *place)
    assert done.returncode == 0, done.stderr
    assert "# Walk-forward" in done.stdout
    assert "# All folds pooled" in done.stdout
    (run,) = (tmp_path / "w" / "runs").iterdir()
    assert len(list((run / "walk_forward" / "models").glob("fold-[12]/*.safetensors"))) == 12
    assert not (tmp_path / "w" / "registry").exists()
    before = (run / "walk_forward" / "DONE.json").stat().st_mtime_ns
    again = vnquant("run", "walk_forward", "--spec", str(run / "spec.json"), *place)
    assert again.returncode == 0, again.stderr
    assert "# All folds pooled" in again.stdout
    assert (run / "walk_forward" / "DONE.json").stat().st_mtime_ns == before
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(manifest["stages"]) == {"ingest", "features", "walk_forward"}
