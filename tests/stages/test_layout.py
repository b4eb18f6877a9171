"""How a CPU's cores are divided among processes: what is tried, what is kept, what is chosen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.accelerators.test_topology import I7_14700, machine
from tests.stages.conftest import SPEC, context, happened
from vnquant.accelerators.topology import Core, Topology, read
from vnquant.cli_progress import describe
from vnquant.stages import layout, run_stage
from vnquant.stages.context import Context
from vnquant.stages.layout import Layout, candidates, pick
from vnquant.workspace import read_json

TWO = Topology((Core("p", (0,)), Core("p", (1,))), "one kind of core")
needs_two = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two CPUs are needed")


@pytest.fixture
def featured(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A run with features and no models, for which every job is worth a trial."""
    monkeypatch.setattr(layout, "WORTH_OPERATIONS", 0.0)
    monkeypatch.setattr(layout, "SECONDS", 0.2)
    shutil.copytree(trained, tmp_path / "w")
    ctx = context(tmp_path / "w")
    shutil.rmtree(ctx.stage("train").path)
    return ctx


def test_two_cores_are_one_process_or_two() -> None:
    ways = candidates(TWO, None, {0, 1}, 9)
    assert [str(w) for w in ways] == ["1 x 2 threads", "2 x 1 threads"]
    assert ways[1].teams == ((0,), (1,))
    assert [str(w) for w in candidates(TWO, None, {1}, 9)] == ["1 x 1 threads"]


def test_an_i7_14700_is_tried_on_its_p_cores_and_on_all(tmp_path: Path) -> None:
    found = read(machine(tmp_path, I7_14700, core="0-15", atom="16-27"))
    ways = [str(w) for w in candidates(found, None, range(28), 99)]
    p = ["1 x 8", "2 x 4", "4 x 2", "8 x 1"]
    assert ways == [f"{w} threads on p cores" for w in p] + [
        f"{w} threads" for w in ("5 x 4", "10 x 2", "20 x 1")
    ]
    e = [str(w) for w in candidates(found, "e", range(28), 99)]
    assert e == [f"{w} threads on e cores" for w in ("1 x 12", "3 x 4", "6 x 2", "12 x 1")]
    few = candidates(found, None, range(28), 4)
    assert max(len(w.teams) for w in few) == 4


def test_several_processes_must_be_clearly_faster() -> None:
    assert pick([10.0, 10.4, 9.0]) == 0
    assert pick([10.0, 10.6, 10.7]) == 2
    assert pick([0.0, 1.0]) == 1


@needs_two
def test_a_long_job_is_tried_once_and_the_outcome_kept(
    featured: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(featured, "train")
    (event,) = happened(featured, "layout")
    assert len(event["rates"]) == len(event["layouts"]) >= 2
    assert all(rate > 0 for rate in event["rates"])
    (path,) = (featured.workspace.path / "machines").glob("layout-*.json")
    monkeypatch.setattr(layout, "measure", lambda *_: pytest.fail("it is known already"))
    shutil.rmtree(featured.stage("train").path)
    again = context(featured.workspace.path)
    run_stage(again, "train")
    assert happened(again, "layout")[-1]["rates"] == event["rates"]
    path.write_text("{")  # what cannot be read is measured again
    monkeypatch.setattr(layout, "measure", lambda ctx, way: float(len(way.teams)))
    shutil.rmtree(featured.stage("train").path)
    run_stage(context(featured.workspace.path), "train")
    assert read_json(path)["rates"] == [1.0, 2.0][: len(event["rates"])]
    assert len(happened(again, "team_started")) >= 2


@pytest.mark.parametrize("wish", [{"teams": 1}, {"threads": 1}])
def test_a_wish_is_not_put_to_trial(featured: Context, wish: dict[str, Any]) -> None:
    ctx = context(featured.workspace.path, **wish)
    run_stage(ctx, "train")
    assert not happened(ctx, "layout")


def test_a_short_job_is_not_worth_a_trial(
    featured: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "WORTH_OPERATIONS", 1e14)
    run_stage(featured, "train")
    assert not happened(featured, "layout")


def test_a_process_that_dies_makes_its_layout_the_last_choice(
    featured: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = layout._start
    crew: list[subprocess.Popen[str]] = []

    def killed(job: dict[str, Any]) -> subprocess.Popen[str]:
        crew.append(start(job))
        crew[-1].kill()
        return crew[-1]

    monkeypatch.setattr(layout, "_start", killed)
    assert layout.measure(featured, Layout("all", ((0,),))) == 0.0
    assert crew[0].returncode == -9


HANGING = {
    "before it is ready": "input(); time.sleep(600)",
    "before it is done": "input(); print('ready', flush=True); time.sleep(600)",
    "in the middle of a line": "input(); print('rea', end='', flush=True); time.sleep(600)",
}


@pytest.mark.parametrize("code", HANGING.values(), ids=HANGING)
def test_a_process_that_hangs_holds_nothing_up(
    featured: Context, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    crew: list[subprocess.Popen[str]] = []

    def hangs(job: dict[str, Any]) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", f"import time; {code}"]
        pipe = subprocess.PIPE
        crew.append(subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True))
        layout.say(crew[-1], json.dumps(job))
        return crew[-1]

    monkeypatch.setattr(layout, "_start", hangs)
    began = time.monotonic()
    assert layout.measure(featured, Layout("all", ((0,), (0,))), 0.1, patience=2.0) == 0.0
    assert time.monotonic() - began < 60
    assert [p.returncode for p in crew] == [-9, -9]
    (event,) = happened(featured, "layout_hangs")
    line = "train: the trial of 2 x 1 threads was not done in 2 s and is left out"
    assert describe(event) == line


def test_a_trial_in_time_gives_up_nothing(featured: Context) -> None:
    way = Layout("all", ((min(os.sched_getaffinity(0)),),))
    assert layout.measure(featured, way, 0.1) > 0
    assert not happened(featured, "layout_hangs")


@needs_two
def test_training_goes_on_in_one_process_where_every_trial_failed(
    featured: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "measure", lambda ctx, way: 0.0)
    run_stage(featured, "train")
    assert featured.stage("train").done() is not None
    assert not happened(featured, "team_started")
    assert not list((featured.workspace.path / "machines").glob("layout-*.json"))


def test_the_trial_trains_what_the_spec_says(featured: Context) -> None:
    """A model of many times the operations is slower, or the rate is of something else."""
    wide = SPEC.model_copy(
        update={"model": SPEC.model.model_copy(update={"d_model": 128, "d_ff": 512})}
    )
    way = Layout("all", ((min(os.sched_getaffinity(0)),),))
    small = layout.measure(featured, way, 0.5)
    featured.run = featured.workspace.run(wide)
    featured.__dict__["panel"] = context(featured.workspace.path).panel
    assert layout.measure(featured, way, 0.5) < small / 2
