"""Attending to launches: several programs at once, providers that fail, wishes to stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from vnquant.errors import RETRY, RetryableError
from vnquant.host import launch as starting
from vnquant.host import launch_actions, publishing
from vnquant.host.launch import Wish
from vnquant.host.publisher import Publisher
from vnquant.host.records import launches, now, refreshed, save
from vnquant.host.targets import STARTING, LaunchSpec, Record, State, container
from vnquant.host.targets.container import ROWS, ContainerTarget, gpu_request
from vnquant.workspace import write_json

RUNNING, UNKNOWN = State("running"), State("unknown", note="connection refused")


class Scripted:
    """A provider that answers as a test has written down; its last answer stays."""

    def __init__(self, *answers: State, deaf: int = 0) -> None:
        self.answers, self.deaf = list(answers), deaf
        self.stopped = self.removed = self.starts = 0

    def preflight(self, _launch: LaunchSpec) -> list[Any]:
        return []

    def start(self, _launch: LaunchSpec, _record: Record) -> Record:
        self.starts += 1
        return {}

    def poll(self, _record: Record) -> State:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def output(self, _record: Record, *, follow: bool) -> Iterator[str]:
        return iter(())

    def stop(self, _record: Record, _grace: float) -> None:
        if self.deaf:
            self.deaf -= 1
            raise RetryableError("the engine does not answer")
        self.stopped += 1
        self.answers = [State("exited", 143)]

    def remove(self, _record: Record) -> bool:
        self.removed += 1
        return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "POLL", 0.01)
    monkeypatch.setattr(starting, "BACKOFF", 0.01)


@pytest.fixture
def launch(tmp_path: Path) -> LaunchSpec:
    return LaunchSpec(target="cpu", workspace=tmp_path, run_id="r" * 12, stages=("train",))


def on(monkeypatch: pytest.MonkeyPatch, target: Scripted) -> Scripted:
    monkeypatch.setattr(starting, "open_target", lambda _: target)
    return target


def attended(launch: LaunchSpec, wish: Wish | None = None) -> tuple[State, list[str]]:
    said: list[str] = []
    record = starting.begin(launch)
    return starting.attend(launch, record, said.append, said.append, wish=wish), said


def test_an_end_that_another_program_has_recorded_is_not_a_loss(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has removed the container too, so the provider knows nothing of it any more."""
    target = on(monkeypatch, Scripted(RUNNING, RUNNING, State("lost", note="no such container")))
    record = starting.begin(launch)
    save({**record, "ended": now(), "exit_code": 4, "note": "", "cleared": True})
    state = starting.attend(launch, record, print, print)
    assert state == State("exited", 4)
    assert target.starts == 1, "a run that has ended is not started again"


def test_the_first_record_of_an_end_stays(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, Scripted(State("exited", 143)))
    first = starting.begin(launch)
    second = dict(first)
    starting.settle(first)
    on(monkeypatch, Scripted(State("lost")))
    assert starting.settle(second) == State("exited", 143)
    assert launches(launch.run)[0]["exit_code"] == 143


def test_what_could_not_be_removed_is_removed_later(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = on(monkeypatch, Scripted(State("exited", 0)))
    monkeypatch.setattr(target, "remove", lambda _: False)
    record = starting.begin(launch)
    starting.settle(record)
    assert "cleared" not in launches(launch.run)[0]
    target = on(monkeypatch, Scripted(State("lost")))
    assert starting.settle(launches(launch.run)[0]) == State("exited", 0)
    assert target.removed == 1
    assert launches(launch.run)[0]["cleared"] is True


def test_the_last_status_call_may_fail_too(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, Scripted(RUNNING, State("exited", 0), UNKNOWN))
    state, _ = attended(launch)
    assert state == State("exited", 0)
    assert launches(launch.run)[0]["exit_code"] == 0


@pytest.mark.parametrize(
    ("end", "starts"),
    [
        (State("exited", 5), 3),
        (State("lost", note="gone"), 3),
        (State("exited", 1), 1),
        (State("exited", 143), 1),
        (State("exited", 137, "killed, because it used more memory than it may"), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch, end: State, starts: int
) -> None:
    target = on(monkeypatch, Scripted(end))
    state, said = attended(launch)
    assert state == end
    assert target.starts == starts
    assert sum("Starting again" in s for s in said) == starts - 1
    assert [r["attempt"] for r in launches(launch.run)] == list(range(1, starts + 1))


def test_a_lost_run_is_worth_retrying(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch_actions.ended(State("lost", note="the engine knows it no more")) == RETRY
    assert "knows it no more" in capsys.readouterr().err


@pytest.mark.parametrize(("asked", "starts"), [(False, 2), (True, 1)])
def test_an_engine_that_stops_takes_its_containers_along(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch, asked: bool, starts: int
) -> None:
    """Unless somebody asked for the end, it is a loss, and the run goes on where it stood."""
    target = on(monkeypatch, Scripted(RUNNING, UNKNOWN, State("exited", 143)))
    record = starting.begin(launch)
    if asked:  # by `vnquant stop`, elsewhere
        save({**record, "stopping": now()})

    def started(_record: Record) -> None:
        if target.starts == 2:
            target.answers = [State("exited", 0)]

    state = starting.attend(launch, record, print, print, started=started)
    assert target.starts == starts
    assert state.exit_code == (143 if asked else 0)


def test_a_wish_reaches_an_engine_that_is_deaf_at_first(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = on(monkeypatch, Scripted(RUNNING, deaf=3))
    wish = Wish()
    wish.ask()
    state, said = attended(launch, wish)
    assert state == State("exited", 143)
    assert target.stopped == 1
    assert target.starts == 1
    assert any("Asking the run to save" in s for s in said)
    assert "stopping" in launches(launch.run)[0]


def test_a_second_wish_leaves_the_run_alone(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = on(monkeypatch, Scripted(RUNNING, deaf=10**6))
    wish = Wish()
    timer = threading.Timer(0.2, wish.ask)
    wish.ask()
    timer.start()
    state, _ = attended(launch, wish)
    timer.join()
    assert state.status == "running"
    assert "ended" not in launches(launch.run)[0]
    target.deaf = 0
    # The thread that asks must come to its end here: later it would stop the next test's target.
    until = time.monotonic() + 60
    while not target.stopped and time.monotonic() < until:
        time.sleep(0.01)
    assert target.stopped == 1


def test_a_wish_between_two_attempts_ends_it(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = on(monkeypatch, Scripted(State("exited", 5)))
    monkeypatch.setattr(starting, "BACKOFF", 60.0)
    wish = Wish()

    def say(line: str) -> None:
        if "Starting again" in line:
            wish.ask()

    record = starting.begin(launch)
    state = starting.attend(launch, record, say, say, wish=wish)
    assert (state.exit_code, target.starts) == (5, 1)


def test_stop_says_when_it_did_not_work(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, Scripted(UNKNOWN, deaf=10**6))
    monkeypatch.setattr(starting, "PATIENCE", 0.05)
    record = starting.begin(launch)
    said: list[str] = []
    assert starting.stop(record, 0.05, said.append) == UNKNOWN
    assert ["could not be stopped" in s for s in said] == [True]
    assert "ended" not in refreshed(record)


class Broken:
    """An engine whose socket breaks, as the docker SDK reports it."""

    @property
    def containers(self) -> Any:
        raise requests.exceptions.ConnectionError("Connection aborted.")


def test_a_broken_connection_is_no_state_of_the_run(
    launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(container, "client", lambda _t=None: made.append(1) or Broken())
    target = ContainerTarget(ROWS["cpu"])
    record = {"launch": "x", "started": now()}
    assert target.poll(record) == State("unknown", note="Connection aborted.")
    assert target.poll(record).status == "unknown"
    assert len(made) == 2, "a client that failed is not asked again"
    with pytest.raises(RetryableError, match="does not answer"):
        target.stop(record, 1)


class Empty:
    """An engine without containers."""

    class containers:
        @staticmethod
        def list(**_: Any) -> list[Any]:
            return []


def test_a_launch_that_is_being_started_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "client", lambda _t=None: Empty())
    target = ContainerTarget(ROWS["cpu"])
    assert target.poll({"launch": "x", "started": now()}).status == "unknown"
    assert target.poll({"launch": "x", "started": now(), "container": "c"}).status == "lost"
    monkeypatch.setattr(container, "age", lambda _: STARTING + 1)
    assert target.poll({"launch": "x", "started": now()}).status == "lost"


def test_a_gpu_is_asked_for_in_the_way_that_the_engine_has() -> None:
    cdi = {"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]}
    assert gpu_request({"Runtimes": {"nvidia": {}}, **cdi})["count"] == -1
    assert gpu_request(cdi) == {"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"]}
    assert gpu_request({})["count"] == -1


def test_cpus_that_are_not_there(launch: LaunchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Scripted(RUNNING))
    found = starting.preflight(launch.model_copy(update={"cpuset": "4000-4010"}))
    assert ["none of the CPUs" in f.what for f in found if not f.ok] == [True]


# What is said about the remote


def filled(workspace: Path, run: str) -> None:
    write_json(workspace / "runs" / run / "spec.json", {})
    write_json(workspace / "runs" / run / "launches" / "x.json",
               {"launch": "x", "started": "1", "ended": "2"})  # fmt: skip
    write_json(workspace / "runs" / run / "ingest" / "DONE.json", {})
    for owner in (run, "another"):
        folder = workspace / "registry" / "sets" / f"of-{owner}"
        write_json(folder / "models.json", {})
        write_json(folder / "set.json", {"run_id": owner})


def test_saved_is_said_only_where_the_store_has_receipts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where some publisher's status file says so: it may be that of another run."""
    workspace, store = tmp_path / "w", f"directory:{tmp_path / 's'}"
    filled(workspace, "r1")
    write_json(workspace / "publish" / "status.json", {"backlog": 0, "acknowledged": 99})
    monkeypatch.setattr(publishing, "CONCLUDE", 0.0)
    monkeypatch.setattr(publishing.process, "start", lambda *_, **__: 2**22 + 1)
    beside = publishing.Beside(workspace, "r1", store)
    beside.start()
    said = beside.conclude()
    assert said.startswith("NOT saved")
    assert "4 files" in said, "two of the run, two of the set that was deployed from it"
    assert "vnquant sync push --run r1" in said
    Publisher(workspace, store, "r1", print).drain()
    assert beside.conclude() == f"Saved and verified on {tmp_path / 's'}: 4 files."
    # Trained anew under the same name: the remote's bytes are the old ones.
    write_json(workspace / "runs" / "r1" / "ingest" / "DONE.json", {"again": True})
    assert "1 files" in beside.conclude()


def test_a_publisher_that_left_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, store = tmp_path / "w", f"directory:{tmp_path / 's'}"
    filled(workspace, "r1")
    monkeypatch.setattr(publishing, "AGAIN", 0.01)

    def start(*_: Any, **__: Any) -> int:
        Publisher(workspace, store, "r1", print).drain()
        return 2**22 + 1

    monkeypatch.setattr(publishing.process, "start", start)
    assert publishing.Beside(workspace, "r1", store).conclude().startswith("Saved and verified")


# The commands, from end to end


def vnquant(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vnquant", *words],
        capture_output=True, text=True, timeout=240, check=False, **more,
    )  # fmt: skip


@pytest.mark.slow
def test_train_on_a_target_publishes_and_is_found_again(tmp_path: Path) -> None:
    place = ("--workspace", str(tmp_path / "w"))
    train = (
        *("train", "--target", "local", "--symbols", "FPT", "VCB", "--start", "2019-01-01"),
        *("--preset", "small", "--epochs", "1", "--threads", "1", "--force"),
        *("--remote", f"directory:{tmp_path / 's'}", *place),
    )
    done = vnquant(*train)
    assert done.returncode == 0, done.stderr
    assert "# Verdict" in done.stdout
    assert "Saved and verified on" in done.stderr.splitlines()[-1]
    assert list((tmp_path / "s" / "registry" / "sets").glob("*/set.json"))
    (row,) = json.loads(vnquant("status", "--json", *place).stdout)
    assert (row["state"], row["target"], row["exit_code"]) == ("finished", "local", 0)
    text = vnquant("status", *place).stdout
    assert row["run"] in text
    assert "To be saved on" in text
    assert "# Verdict" in vnquant("logs", row["run"], *place).stdout
    stopped = vnquant("stop", row["run"], *place)
    assert "Nothing of this run is at work" in stopped.stderr
    # The same words are the same run, which has ended: nothing is computed again.
    again = vnquant(*train, "--detach")
    assert again.returncode == 0
    assert f"vnquant logs {row['run']} -f" in again.stderr
    assert vnquant("logs", "-f", row["run"], *place).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--target", "cuda", "--device", "cpu"), 2, "contradicts"),
        (("--target", "local", "--image", "x"), 2, "leave --image out"),
        (("--target", "local", "--cpuset", "0-"), 2, "0-7,16"),
        (("--target", "local", "--cpuset", "x"), 2, "0-7,16"),
        (("--target", "local", "--workspace", "/proc/nowhere"), 2, "cannot be written"),
        (("--target", "local", "--remote", "nothing"), 2, "REMOTE:PATH"),
        (("--target", "local", "--validate-only"), 2, "--target"),
    ],
)
def test_mistakes_are_named_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    place = () if "--workspace" in words else ("--workspace", str(tmp_path))
    done = vnquant("train", "--symbols", "FPT", *words, *place)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert not list(tmp_path.glob("runs/*/launches/*"))


def test_no_engine_is_one_sentence(tmp_path: Path) -> None:
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nowhere.sock"}
    done = vnquant("train", "--target", "cpu", "--symbols", "FPT", "-w", str(tmp_path), env=env)
    assert done.returncode == 2
    assert "no container engine answers" in done.stderr
    assert len(done.stderr.splitlines()) == 1
