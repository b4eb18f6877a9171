"""The cycle: phases, jobs, fallbacks, the lock, and SIGKILL at any phase."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vnquant.errors import INTERRUPTED, OK, PARTIAL, RETRY, RetryableError, UsageError
from vnquant.events import read_events
from vnquant.host import launch as starting
from vnquant.host.cycle import PHASES, TARGET, Cycle, cost, stages
from vnquant.host.findings import Finding
from vnquant.host.jobs import Job, Jobs
from vnquant.host.launch import Wish
from vnquant.host.records import launches, save
from vnquant.host.summary import result, text, title
from vnquant.host.targets import LaunchSpec, Record, State
from vnquant.spec import RunSpec
from vnquant.stages.pipeline import NEEDS
from vnquant.workspace import DONE, write_json

SPEC = RunSpec(
    symbols=("FPT", "VCB"),
    data={"start": "2019-01-01"},
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
)
DONE_WELL = State("exited", 0)


class Provider:
    """A target that ends as a test says, and marks its stages finished if it ends well."""

    def __init__(self, *ends: State, refuses: str = "", fails: str = "") -> None:
        self.ends, self.refuses, self.fails = list(ends), refuses, fails
        self.seen: list[tuple[str, ...]] = []

    def preflight(self, _launch: LaunchSpec) -> list[Finding]:
        return [Finding("error", self.refuses)] if self.refuses else []

    def start(self, launch: LaunchSpec, _record: Record) -> Record:
        if self.fails:
            raise RetryableError(self.fails)
        self.seen.append(launch.stages)
        return {}

    def poll(self, record: Record) -> State:
        state = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if state.exit_code in (OK, PARTIAL):
            for stage in record["spec"]["stages"]:
                write_json(Path(record["workspace"], "runs", record["run"], stage, DONE), {})
        return state

    def output(self, _record: Record, *, follow: bool) -> Iterator[str]:
        return iter(())

    def stop(self, _record: Record, _grace: float) -> None:
        self.ends = [State("exited", 143)]

    def remove(self, _record: Record) -> bool:
        return True


class Bench:
    """A cycle whose targets are `Provider`s."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, **targets: Provider) -> None:
        self.targets = {"local": Provider(DONE_WELL)} | targets
        self.said: list[str] = []
        self.wish = Wish()
        self.jobs = Jobs(path)
        patch.setattr(starting, "open_target", self.open)
        patch.setattr(starting, "POLL", 0.001)
        patch.setattr(starting, "BACKOFF", 0.001)
        (path / "runs" / SPEC.run_id).mkdir(parents=True, exist_ok=True)
        self.base = LaunchSpec(
            target="local", workspace=path, run_id=SPEC.run_id, stages=(), retries=0
        )

    def open(self, name: str) -> Provider:
        if name not in self.targets:
            raise UsageError(f"there is no target {name}")
        return self.targets[name]

    def cycle(self, mode: Any = "hybrid", fallback: str | None = None, **more: Any) -> Cycle:
        job = self.jobs.take_up(mode, SPEC, TARGET[mode], fallback)
        return Cycle(
            self.jobs, job, self.base, self.said.append, self.said.append, self.wish, **more
        )

    def kept(self) -> Job:
        return self.jobs.all()[0]


def test_the_phases_hold_every_stage_after_what_it_needs() -> None:
    for mode in TARGET:
        seen: set[str] = set()
        for phase in range(1, len(PHASES) + 1):
            for stage in stages(mode, phase, optimize=True):
                assert set(NEEDS[stage]) <= seen | {stage}
                seen.add(stage)
        assert seen == set(NEEDS) - {"walk_forward"}


def test_training_goes_there_and_all_else_stays_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colab = Provider(DONE_WELL)
    bench = Bench(tmp_path, monkeypatch, colab=colab)
    assert bench.cycle().carry_out() == OK
    assert colab.seen == [("train",)]
    here = [s for stages_here in bench.targets["local"].seen for s in stages_here]
    assert here[:3] == ["ingest", "features", "evaluate"]
    kept = bench.kept()
    assert (kept.state, kept.phase, kept.done) == ("finished", 4, [1, 2, 3, 4])
    assert kept.attempts == dict.fromkeys(range(1, 5), 1)
    assert set(kept.cost) == {"h on local", "h on colab"}


def test_in_mode_colab_the_judging_is_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colab = Provider(DONE_WELL)
    Bench(tmp_path, monkeypatch, colab=colab).cycle("colab").carry_out()
    assert colab.seen == [("train", "evaluate", "backtest")]


@pytest.mark.parametrize(
    "absent",
    [
        {},
        {"colab": Provider(DONE_WELL, refuses="no credit is left")},
        {"colab": Provider(DONE_WELL, fails="no machine is to be had")},
        {"colab": Provider(State("lost", note="taken back"))},
    ],
    ids=["unheard of", "refuses", "does not start", "lost for good"],
)
def test_a_target_that_cannot_be_had_is_replaced_only_if_asked(
    absent: dict[str, Provider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = Provider(DONE_WELL)
    bench = Bench(tmp_path, monkeypatch, cpu=cpu, **absent)
    lost = absent and absent["colab"].ends[0].status == "lost"
    if lost:
        assert bench.cycle().carry_out() == RETRY
    else:
        with pytest.raises((UsageError, RetryableError)):
            bench.cycle().carry_out()
    assert (bench.kept().state, bench.kept().phase, cpu.seen) == ("failed", 2, [])
    assert bench.cycle(fallback="cpu").carry_out() == OK
    assert cpu.seen == [("train",)]
    assert bench.kept().target == "cpu"
    assert "Fell back from colab to cpu" in bench.kept().note
    assert len(bench.jobs.all()) == 1, "the same command took the job up"


def test_a_program_that_fails_is_not_tried_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = Provider(DONE_WELL)
    bench = Bench(tmp_path, monkeypatch, cpu=cpu, colab=Provider(State("exited", 3)))
    assert bench.cycle(fallback="cpu").carry_out() == 3
    assert cpu.seen == []
    assert (bench.kept().state, bench.kept().exit_code) == ("failed", 3)


def test_symbols_that_fail_do_not_end_the_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, colab=Provider(State("exited", PARTIAL)))
    assert bench.cycle().carry_out() == PARTIAL
    assert bench.kept().state == "finished"


def test_a_job_goes_on_after_the_phases_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colab = Provider(State("exited", 1))
    bench = Bench(tmp_path, monkeypatch, colab=colab)
    assert bench.cycle().carry_out() == 1
    before = len(bench.targets["local"].seen)
    colab.ends = [DONE_WELL]
    assert bench.cycle().carry_out() == OK
    assert bench.kept().attempts == {1: 1, 2: 2, 3: 1, 4: 1}
    assert len(bench.targets["local"].seen) == before + 2


def test_a_launch_that_is_at_work_is_followed_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colab = Provider(State("running"), State("running"), DONE_WELL)
    bench = Bench(tmp_path, monkeypatch, colab=colab)
    launch = bench.base.model_copy(update={"target": "colab", "stages": ("train",)})
    record = starting.begin(launch)  # by a controller that has been killed since
    cycle = bench.cycle()
    cycle.job.done = [1]
    assert cycle.carry_out() == OK
    assert colab.seen == [("train",)]
    assert f"Launch {record['launch']} is at work already; following it." in bench.said


def test_no_machine_is_asked_for_when_training_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colab = Provider(DONE_WELL)
    bench = Bench(tmp_path, monkeypatch, colab=colab)
    assert bench.cycle().carry_out() == OK
    assert bench.cycle().carry_out() == OK
    assert colab.seen == [("train",)]
    assert len(bench.jobs.all()) == 2, "a finished job is not taken up again"


def test_from_phase_needs_what_it_builds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, colab=Provider(DONE_WELL))
    with pytest.raises(UsageError, match="ingest, features, train"):
        bench.cycle().carry_out(3)
    assert bench.jobs.all() == []
    assert bench.cycle().carry_out() == OK
    seen = bench.targets["local"].seen
    seen.clear()
    assert bench.cycle().carry_out(3) == OK
    assert seen[0] == ("evaluate", "backtest")


def test_a_wish_to_stop_ends_the_cycle_and_the_job_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colab = Provider(State("running"))
    bench = Bench(tmp_path, monkeypatch, colab=colab)
    assert bench.cycle(started=lambda r: bench.wish.ask() if r["target"] == "colab" else None,
                       fallback="cpu").carry_out() == 143  # fmt: skip
    assert (bench.kept().state, bench.kept().phase) == ("stopped", 2)
    assert bench.cycle().carry_out() == INTERRUPTED, "nothing is begun after it"


def test_lent_machines_cost_from_granted_to_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    times = {"started": "2026-11-22T19:00:00+00:00", "ended": "2026-11-22T22:00:00+00:00"}
    lent = {"allocated": "2026-11-22T19:30:00+00:00", "released": "2026-11-22T21:00:00+00:00"}
    common = {"workspace": str(tmp_path), "run": SPEC.run_id}
    save({**common, "launch": "a", "target": "cpu", **times})
    save({**common, "launch": "b", "target": "colab", **times, **lent})
    save({**common, "launch": "c", "target": "colab", **times, "started": "2026-11-15T19:00:00"})
    assert cost(bench.base, "2026-11-20") == {"h on cpu": 3.0, "h on colab": 1.5}


def test_a_running_job_that_nobody_carries_out_is_called_interrupted(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = jobs.take_up("local", SPEC, "local", None)
    with jobs.lock():
        jobs.save(job)
        assert jobs.all()[0].state == "running"
        with pytest.raises(RetryableError, match="another cycle"), jobs.lock():
            pass
    assert jobs.all()[0].state == "interrupted"
    assert jobs.take_up("local", SPEC, "local", None).job == job.job
    (tmp_path / "jobs" / "broken.json").write_text("{")
    assert len(jobs.all()) == 1


def test_the_summary_compares_with_the_week_before(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    old = jobs.take_up("local", SPEC, "local", None)
    old = old.model_copy(
        update={"job": "20261115T190000-aaaaaa", "started": "2026-11-15T19:00:00+00:00",
                "state": "finished", "result": {"accuracy": 0.51}}
    )  # fmt: skip
    jobs.save(old)
    run = tmp_path / "runs" / "r"
    write_json(run / "train" / DONE, {"symbols": ["FPT"], "failed": {"VCB": "diverged"}})
    write_json(run / "evaluate" / "verdict.json", {"comparison": [{"accuracy": 0.5321}]})
    write_json(run / "deploy" / DONE, {"set": None, "gate": {"reason": "sharpe too low"}})
    new = jobs.take_up("local", SPEC, "local", None)
    new = new.model_copy(
        update={"state": "finished", "ended": new.started, "result": result(run),
                "cost": {"h on colab": 1.5}}
    )  # fmt: skip
    said = text(new, jobs.before(new))
    assert "Symbols: 1 of 2 done, 1 failed" in said
    assert "VCB: diverged" in said
    assert "Accuracy: 53.21%, +2.21 points against 51.00% of 2026-11-15" in said
    assert "Not deployed, the set before stays: sharpe too low" in said
    assert "Cost: 1.50 h on colab" in said
    assert "finished" in title(new)
    assert "failed" in title(new.model_copy(update={"state": "failed"}))


# The command, from end to end


def words(workspace: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "vnquant", "train", "--mode", "local", "--symbols", "FPT", "VCB"),
        *("--start", "2019-01-01", "--preset", "small", "--epochs", "2", "--threads", "1"),
        *("--workspace", str(workspace), *more),
    ]


def listed(workspace: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "vnquant", "jobs", "--json", "-w", str(workspace)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return list(json.loads(done.stdout))


def weights(workspace: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in workspace.glob("runs/*/train/models/*.safetensors")}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("straight")
    done = subprocess.run(words(workspace), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Accuracy: " in done.stderr
    return workspace


@pytest.mark.slow
def test_the_whole_cycle_is_one_job(straight: Path) -> None:
    (job,) = listed(straight)
    assert (job["state"], job["mode"], job["phase"], job["exit_code"]) == (
        "finished",
        "local",
        4,
        0,
    )
    assert job["result"]["done"] == 2
    assert 0 < job["result"]["accuracy"] < 1
    assert list(straight.glob("runs/*/report/*.html"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "with_child"),
    [(1, False), (2, False), (2, True), (3, True), (4, False)],
    ids=["1", "2", "2 and its child", "3 and its child", "4"],
)
def test_sigkill_at_any_phase_then_the_same_command_goes_on(
    phase: int, with_child: bool, straight: Path, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(words(tmp_path / "w"), stdout=log, stderr=log)
        until = time.monotonic() + 120
        while time.monotonic() < until and child.poll() is None:
            records = [r for p in (tmp_path / "w").glob("runs/*") for r in launches(p)]
            if len(records) == phase and "pid" in records[-1]:
                break
            time.sleep(0.01)
        assert child.poll() is None, (tmp_path / "log").read_text()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    if with_child:
        for pid in (int(records[-1]["pid"]), *children(int(records[-1]["pid"]))):
            os.kill(pid, signal.SIGKILL)
    (job,) = listed(tmp_path / "w")
    assert job["state"] == "interrupted"
    done = subprocess.run(words(tmp_path / "w"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (job,) = listed(tmp_path / "w")
    assert (job["state"], job["done"]) == ("finished", [1, 2, 3, 4])
    assert job["attempts"][str(phase)] == 2
    assert weights(tmp_path / "w") == weights(straight) != {}


def children(pid: int) -> list[int]:
    import psutil

    try:
        return [c.pid for c in psutil.Process(pid).children()]
    except psutil.Error:
        return []


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--detach",), 2, "--detach"),
        (("--validate-only",), 2, "--validate-only"),
        (("--from-phase", "2"), 2, "ingest, features"),
        (("--mode", "hybrid", "--target", "cpu"), 2, "no container engine answers"),
    ],
)
def test_mistakes_are_named(more: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nowhere.sock"}
    done = subprocess.run(
        words(tmp_path, *more), capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_is_on_the_remote_comes_back_before_anything_is_trained(
    straight: Path, tmp_path: Path
) -> None:
    remote = ("--remote", f"directory:{tmp_path / 'remote'}")
    shutil.copytree(straight, tmp_path / "here")
    for place in ("here", "elsewhere"):
        done = subprocess.run(
            words(tmp_path / place, *remote), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "rought back" in done.stderr
    (run,) = (tmp_path / "elsewhere").glob("runs/*")
    begun = [e["stage"] for e in read_events(run / "events.jsonl") if e["event"] == "stage_started"]
    assert "train" not in begun
    assert weights(tmp_path / "elsewhere") == weights(straight) != {}


def test_phases_are_for_cycles(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vnquant", "train", "--fallback", "cpu", "-w", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "only with --mode" in done.stderr


def test_two_cycles_at_once_are_refused(tmp_path: Path) -> None:
    with Jobs(tmp_path).lock():
        done = subprocess.run(words(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == RETRY
    assert "another cycle is at work" in done.stderr
