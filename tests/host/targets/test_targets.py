"""One set of promises that every target keeps, and what only containers have.

`local` runs anywhere; `cpu` needs an engine and the small image (``./just test-containers``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vnquant.errors import UsageError
from vnquant.host import launch as starting
from vnquant.host import status
from vnquant.host.findings import refuse_errors
from vnquant.host.records import launches
from vnquant.host.targets import LaunchSpec, Record, open_target
from vnquant.host.targets.container import ROWS, ContainerTarget, gpu_finding
from vnquant.spec import MemberSpec, ModelSpec, RunSpec
from vnquant.workspace import Workspace

IMAGE = os.environ.get("VNQUANT_TEST_IMAGE", "vnquant:cpu-wheels")
KINDS = ["local", pytest.param("cpu", marks=pytest.mark.container)]


def spec(epochs: int = 2) -> RunSpec:
    return RunSpec(
        symbols=("FPT", "VCB"),
        data={"start": "2019-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),)),
        training={"epochs": epochs, "patience": None},
    )


def engine_or_skip() -> Any:
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env()
        client.images.get(IMAGE)
    except docker.errors.DockerException as error:
        pytest.skip(f"needs an engine with the image {IMAGE} ({error})")
    return client


@pytest.fixture
def clean_up(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.glob("*/runs/*"):
        for record in launches(path):
            if "ended" not in record:
                starting.stop(record, 1)


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, clean_up: None) -> str:
    if request.param == "cpu":
        engine_or_skip()
    return str(request.param)


def prepared(
    tmp_path: Path, target: str, of: RunSpec, stages: tuple[str, ...] = ("train",), **more: Any
) -> LaunchSpec:
    workspace = Workspace(tmp_path / target).create()
    run = workspace.run(of)
    run.prepare()
    if target == "cpu":
        more.setdefault("image", IMAGE)
    return LaunchSpec(
        target=target, workspace=workspace.path, run_id=of.run_id, stages=stages, **more
    )


def wait_for(launch: LaunchSpec, event: str, seconds: float = 90) -> None:
    path = launch.run / "events.jsonl"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if path.exists() and f'"{event}"' in path.read_text():
            return
        time.sleep(0.05)
    raise TimeoutError(f"{event} never came")


def ended(record: Record) -> Any:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        state = starting.settle(record)
        if state.status != "running":
            return state
        time.sleep(0.1)
    raise TimeoutError("it never ended")


def test_a_run_ends_with_its_own_code_and_its_results(target: str, tmp_path: Path) -> None:
    launch = prepared(tmp_path, target, spec(), ("train", "evaluate"))
    assert all(f.ok for f in starting.preflight(launch))
    record = starting.begin(launch)
    lines: list[str] = []
    state = starting.follow(record, lines.append, lines.append)
    assert (state.status, state.exit_code) == ("exited", 0), lines
    assert any("train: done" in line for line in lines)
    assert any("# Verdict" in line for line in lines)
    # The container is gone, but not what it said.
    (record,) = launches(launch.run)
    assert list(open_target(target).output(record, follow=False)) == lines
    assert list(open_target(target).output(record, follow=True)) == lines
    kept = launches(launch.run)
    assert kept[0]["exit_code"] == 0
    assert "ended" in kept[0]
    manifest = json.loads((launch.run / "manifest.json").read_text())
    digest = manifest["stages"]["train"]["image_digest"]
    assert (digest is None) == (target == "local")
    assert digest == kept[0].get("image_digest")
    (row,) = status.runs(launch.workspace)
    assert (row["state"], row["target"], row["exit_code"]) == ("finished", target, 0)


def test_an_exit_code_passes_through(target: str, tmp_path: Path) -> None:
    of = spec()
    launch = prepared(tmp_path, target, of)
    broken = {**json.loads(of.canonical_json()), "unheard_of": 1}
    (launch.run / "spec.json").write_text(json.dumps(broken))
    record = starting.begin(launch)
    assert ended(record).exit_code == 2


def test_stop_saves_a_checkpoint_and_a_new_start_resumes(target: str, tmp_path: Path) -> None:
    launch = prepared(tmp_path, target, spec(400))
    record = starting.begin(launch)
    wait_for(launch, "epoch")
    assert starting.stop(record, 60).exit_code == 143
    assert list(launch.run.glob("train/checkpoints/*.json"))
    (row,) = status.runs(launch.workspace)
    assert row["state"] == "stopped"
    again = starting.begin(launch)
    wait_for(launch, "resumed")
    starting.stop(again, 60)


def test_the_same_run_is_not_started_twice(target: str, tmp_path: Path) -> None:
    launch = prepared(tmp_path, target, spec(400))
    record = starting.begin(launch)
    wait_for(launch, "epoch")
    with pytest.raises(UsageError, match="at work already"):
        refuse_errors(starting.preflight(launch))
    # Somebody who does not ask beforehand meets the run's lock, whatever the target.
    second = starting.begin(launch)
    assert ended(second).exit_code == 5
    starting.stop(record, 60)


def controller(launch: LaunchSpec) -> subprocess.Popen[str]:
    """A controller in a process of its own, attending to a launch."""
    code = (
        "import sys; from vnquant.host import launch_actions as a\n"
        "from vnquant.host.targets import LaunchSpec\n"
        "spec = LaunchSpec.model_validate_json(sys.argv[1])\n"
        "sys.exit(a.attend(spec))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, launch.model_dump_json()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_signal_to_the_controller_saves_the_run(
    target: str, tmp_path: Path, signum: signal.Signals
) -> None:
    launch = prepared(tmp_path, target, spec(400))
    child = controller(launch)
    wait_for(launch, "epoch")
    child.send_signal(signum)
    out, _ = child.communicate(timeout=90)
    assert child.returncode == 143, out
    assert "Asking the run to save" in out
    assert "checkpoint is saved" in out
    assert list(launch.run.glob("train/checkpoints/*.json"))


def test_a_killed_controller_loses_nothing(target: str, tmp_path: Path) -> None:
    launch = prepared(tmp_path, target, spec(400))
    child = controller(launch)
    wait_for(launch, "epoch")
    child.kill()
    child.communicate()
    (row,) = status.runs(launch.workspace)
    assert (row["state"], row["target"]) == ("running", target)
    words = ["--workspace", str(launch.workspace), launch.run_id]
    vnquant = [sys.executable, "-m", "vnquant"]
    follow = subprocess.Popen([*vnquant, "logs", "-f", *words], stdout=subprocess.PIPE, text=True)
    stopped = subprocess.run(
        [*vnquant, "stop", *words], capture_output=True, text=True, check=False
    )
    assert stopped.returncode == 0, stopped.stderr
    assert "exit code 143" in stopped.stderr
    out, _ = follow.communicate(timeout=60)
    assert follow.returncode == 143
    assert "train: started" in out


def test_a_lost_run_is_started_again(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL takes away the process or the container; the run goes on where it stood."""
    monkeypatch.setattr(starting, "BACKOFF", 0.2)
    launch = prepared(tmp_path, target, spec(12), words=("--checkpoint-epochs", "1"))
    record = starting.begin(launch)
    wait_for(launch, "checkpoint")
    if target == "local":
        os.killpg(record["pid"], signal.SIGKILL)
    else:
        engine_or_skip().containers.get(record["container"]).remove(force=True)
    said: list[str] = []
    state = starting.attend(launch, record, said.append, said.append)
    assert state.exit_code == 0, said
    assert any("Starting again" in s for s in said)
    assert [r["attempt"] for r in launches(launch.run)] == [1, 2]


def test_without_its_supervisor_a_process_goes_on(tmp_path: Path, clean_up: None) -> None:
    launch = prepared(tmp_path, "local", spec(400))
    record = starting.begin(launch)
    wait_for(launch, "epoch")
    os.kill(record["pid"], signal.SIGKILL)
    os.waitpid(record["pid"], 0)
    assert starting.settle(record).status == "running"
    # A controller that was killed before it could note the process finds it all the same.
    (kept,) = launches(launch.run)
    del kept["pid"], kept["pid_started"]
    assert starting.stop(kept, 60).status == "lost"
    assert list(launch.run.glob("train/checkpoints/*.json"))


def weights(run: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    found = {}
    for path in sorted(run.glob("train/models/*.safetensors")):
        found |= {f"{path.stem}/{k}": v for k, v in load_file(path).items()}
    return found


@pytest.mark.container
def test_bare_host_and_image_give_the_same_run(tmp_path: Path, clean_up: None) -> None:
    engine_or_skip()
    here = prepared(tmp_path, "local", spec(), words=("--threads", "1"))
    there = prepared(tmp_path, "cpu", spec(), words=("--threads", "1"))
    assert here.run_id == there.run_id
    for launch in (here, there):
        assert ended(starting.begin(launch)).exit_code == 0
    a, b = weights(here.run), weights(there.run)
    assert a.keys() == b.keys()
    # docs/targets.md states this tolerance.
    assert max(float(np.abs(a[k] - b[k]).max()) for k in a) < 1e-4
    manifests = [json.loads((x.run / "manifest.json").read_text()) for x in (here, there)]
    assert manifests[0]["spec_digest"] == manifests[1]["spec_digest"]
    assert manifests[0]["data_snapshot"] == manifests[1]["data_snapshot"]


@pytest.mark.container
def test_the_container_is_shut_in(tmp_path: Path, clean_up: None) -> None:
    client = engine_or_skip()
    launch = prepared(tmp_path, "cpu", spec(400), memory=2_000_000_000, cpuset="0,97")
    record = starting.begin(launch)
    found = client.containers.get(record["container"]).attrs
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["NetworkMode"] == "none"
    assert host["CpusetCpus"] == "0", "clipped to what this machine has"
    assert host["Memory"] == host["MemorySwap"] == 2_000_000_000
    owner = os.stat(launch.workspace)
    assert found["Config"]["User"] == f"{owner.st_uid}:{owner.st_gid}"
    starting.stop(record, 60)
    left = client.containers.list(all=True, filters={"label": f"vnquant.launch={record['launch']}"})
    assert left == []


@pytest.mark.container
def test_too_much_memory_is_named_as_such(tmp_path: Path, clean_up: None) -> None:
    engine_or_skip()
    launch = prepared(tmp_path, "cpu", spec(400), memory=120_000_000, retries=0)
    state = ended(starting.begin(launch))
    assert state.exit_code == 137
    assert "more memory than it may" in state.note


@pytest.mark.container
def test_a_missing_source_is_an_error_and_leaves_nothing(tmp_path: Path, clean_up: None) -> None:
    client = engine_or_skip()
    launch = prepared(tmp_path, "cpu", spec(), prices=tmp_path / "nowhere.parquet")
    with pytest.raises(UsageError, match="bind source path does not exist"):
        starting.begin(launch)
    assert not (tmp_path / "nowhere.parquet").exists()
    (record,) = launches(launch.run)
    assert "ended" in record
    label = f"vnquant.launch={record['launch']}"
    assert client.containers.list(all=True, filters={"label": label}) == []


@pytest.mark.container
def test_the_cuda_row_asks_for_a_gpu_and_says_what_is_missing(
    tmp_path: Path, clean_up: None
) -> None:
    client = engine_or_skip()
    launch = prepared(tmp_path, "cuda", spec(), image=IMAGE)
    cuda = ContainerTarget(ROWS["cuda"])
    settings, _ = cuda.settings(launch, {"launch": "x"})
    (request,) = settings["device_requests"]
    assert request["Count"] == -1
    assert request["Capabilities"] == [["gpu"]]
    assert "--device" in settings["command"]
    if gpu_finding(client.info()).ok:
        pytest.skip("this engine has an NVIDIA runtime")
    errors = [f for f in cuda.preflight(launch) if not f.ok]
    assert ["NVIDIA runtime" in f.what for f in errors] == [True]
    with pytest.raises(UsageError, match="NVIDIA runtime"):
        starting.begin(launch)
    assert client.containers.list(all=True, filters={"label": f"vnquant.run={spec().run_id}",
                                                     "status": "created"}) == []  # fmt: skip


class Silent:
    """A provider that does not answer for a while."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers

    def poll(self, _record: Record) -> Any:
        return self.answers.pop(0)

    def output(self, _record: Record, *, follow: bool) -> Iterator[str]:
        return iter(())

    def remove(self, _record: Record) -> None:
        pass


def test_a_failed_status_call_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vnquant.host.targets import State

    unknown = State("unknown", note="connection refused")
    exited = State("exited", 0)
    silent = Silent([State("running"), *[unknown] * 5, State("running"), exited, exited])
    monkeypatch.setattr(starting, "open_target", lambda _: silent)
    monkeypatch.setattr(starting, "PATIENCE", 0.0)
    monkeypatch.setattr(starting, "POLL", 0.01)
    record = {"launch": "x", "run": "r", "target": "cpu", "workspace": str(tmp_path)}
    said: list[str] = []
    state = starting.follow(record, said.append, said.append)
    assert state == exited
    assert ["does not answer" in s for s in said] == [True]


def test_an_engine_that_is_down_is_unknown_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    state = open_target("cpu").poll({"launch": "x"})
    assert state.status == "unknown"
    finding = open_target("cpu").preflight(
        LaunchSpec(target="cpu", workspace=Path("/tmp"), run_id="x", stages=("train",))
    )[0]
    assert not finding.ok
    assert "Docker" in finding.fix


def test_disk_and_memory_are_looked_at_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = prepared(tmp_path, "local", spec(), memory=2**60)
    monkeypatch.setattr(starting, "LEAST_DISK", 2**60)
    errors = [f.what for f in starting.preflight(launch) if not f.ok]
    assert len(errors) == 2
    assert "disk" in errors[0]
    assert "more than this machine has" in errors[1]
    assert launches(launch.run) == []


def test_a_target_that_is_none() -> None:
    with pytest.raises(UsageError, match="no target mars"):
        open_target("mars")
