"""Training from a notebook, with a folder for Drive and without the notebook."""

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

from vnquant import colab
from vnquant import colab_agent as agent
from vnquant.colab import ColabTrainingSetup, TrainingResults
from vnquant.errors import DataError, RetryableError, UsageError
from vnquant.market.synthetic import SyntheticMarket

SETTINGS: dict[str, Any] = {
    "preset": "small",
    "start": "2019-01-01",
    "validation_start": "2021-06-01",
    "test_start": "2022-06-01",
    "epochs": 2,
}
WORDS = ["--threads", "1", "--device", "cpu", "--checkpoint-epochs", "1"]
DRIVER = """
import json, sys
from vnquant.colab import ColabTrainingSetup
drive, scratch, settings, words = json.loads(sys.argv[1])
setup = ColabTrainingSetup(drive, scratch)
setup.start_training(["FPT", "VCB"], words=words, **settings)
"""


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Drive with prices and nothing else."""
    folder = tmp_path_factory.mktemp("drive") / "vnquant"
    (folder / "data").mkdir(parents=True)
    SyntheticMarket().load(["FPT", "VCB"]).to_parquet(folder / "data" / "prices.parquet")
    return folder


@pytest.fixture(scope="module")
def finished(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResults:
    """An undisturbed run."""
    place = tmp_path_factory.mktemp("straight")
    shutil.copytree(drive, place / "drive")
    setup = ColabTrainingSetup(place / "drive", place / "scratch")
    setup.initialize()
    # As in every notebook's kernel.
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    try:
        return setup.start_training(["FPT", "VCB"], words=WORDS, **SETTINGS)
    finally:
        del os.environ["MPLBACKEND"]


def weights(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run.glob("train/models/*.safetensors")}


def start(drive: Path, scratch: Path) -> subprocess.Popen[str]:
    """A notebook's kernel that trains."""
    job = json.dumps([str(drive), str(scratch), SETTINGS, WORDS])
    command = [sys.executable, "-c", DRIVER, job]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def program(scratch: Path) -> int | None:
    """The process that trains there, if one is alive."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"run" in words and str(scratch / "workspace").encode() in words:
            return int(path.parent.name)
    return None


def wait_for_checkpoint(scratch: Path) -> None:
    until = time.monotonic() + 120
    while not list(scratch.glob("workspace/runs/*/train/checkpoints/*.json")):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def kernel(drive: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """One that has trained to its first checkpoint."""
    shutil.copytree(drive, tmp_path / "drive")
    process = start(tmp_path / "drive", tmp_path / "scratch")
    try:
        wait_for_checkpoint(tmp_path / "scratch")
        yield process
    finally:
        process.kill()
        process.communicate()
        if (pid := program(tmp_path / "scratch")) is not None:
            os.kill(pid, signal.SIGKILL)


def test_a_run_leaves_its_results_here_and_on_drive(finished: TrainingResults) -> None:
    assert list(finished.table["symbol"]) == ["FPT", "VCB"]
    assert "Direction was right" in finished.verdict
    assert finished.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert weights(finished.folder) == weights(finished.work) != {}
    root = finished.folder.parents[1]
    assert sorted(p.name for p in root.iterdir()) == sorted(
        ["checkpoints", "configs", "data", "logs", "models"]
    )
    assert (root / "configs" / f"{finished.run_id}.json").exists()
    assert json.loads((root / "logs" / finished.run_id / "heartbeat.json").read_text())[
        "phase"
    ] == "ended"  # fmt: skip


def test_called_again_it_trains_nothing_anew(finished: TrainingResults) -> None:
    drive, scratch = finished.folder.parents[1], finished.work.parents[2]
    trained = sorted(finished.work.glob("train/models/*.safetensors"))
    before = [path.stat().st_mtime_ns for path in trained]
    setup = ColabTrainingSetup(drive, scratch)
    again = setup.start_training(["FPT", "VCB"], words=WORDS, **SETTINGS)
    assert again == finished
    assert [path.stat().st_mtime_ns for path in trained] == before


def test_on_another_machine_the_run_comes_back_from_drive(
    finished: TrainingResults, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder.parents[1], tmp_path / "drive")
    setup = ColabTrainingSetup(tmp_path / "drive", tmp_path / "scratch")
    again = setup.start_training(["FPT", "VCB"], words=WORDS, **SETTINGS)
    assert again.run_id == finished.run_id
    assert weights(again.work) == weights(finished.work)


def test_kernel_and_program_killed_and_all_cells_run_again(
    kernel: subprocess.Popen[str], finished: TrainingResults, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    pid = program(scratch)
    kernel.kill()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    again = start(tmp_path / "drive", scratch)
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert "resumed" in said
    assert weights(scratch / "workspace" / "runs" / finished.run_id) == weights(finished.work)


def test_a_program_that_outlives_its_kernel_is_let_finish(
    kernel: subprocess.Popen[str], finished: TrainingResults, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    kernel.kill()
    assert program(scratch) is not None
    again = start(tmp_path / "drive", scratch)
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert "of an earlier kernel is still at work" in said
    assert weights(scratch / "workspace" / "runs" / finished.run_id) == weights(finished.work)


def test_stopping_the_cell_saves_first(
    kernel: subprocess.Popen[str], finished: TrainingResults, tmp_path: Path
) -> None:
    kernel.send_signal(signal.SIGINT)
    said = kernel.communicate(timeout=120)[0]
    assert "KeyboardInterrupt" in said
    assert program(tmp_path / "scratch") is None
    saved = tmp_path / "drive" / "checkpoints" / finished.run_id
    assert list(saved.glob("*.json"))


def test_two_notebooks_do_not_train_the_same_run(
    kernel: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert kernel.poll() is None
    until = time.monotonic() + 60
    while not list(tmp_path.glob("drive/logs/*/heartbeat.json")) and time.monotonic() < until:
        time.sleep(0.1)
    other = ColabTrainingSetup(tmp_path / "drive", tmp_path / "elsewhere")
    with pytest.raises(RetryableError, match="is at work on this run"):
        other.start_training(["FPT", "VCB"], words=WORDS, **SETTINGS)


@pytest.mark.parametrize("wish", [{}, {"symbols": ["FPT"], "all_symbols": True}])
def test_a_vague_wish_is_refused(tmp_path: Path, wish: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="say which symbols"):
        ColabTrainingSetup(tmp_path).start_training(**wish)  # type: ignore[arg-type]


def test_what_cannot_be_is_said_before_training(drive: Path, tmp_path: Path) -> None:
    setup = ColabTrainingSetup(drive, tmp_path)
    with pytest.raises(UsageError, match="NOSUCH"):
        setup.start_training(["NOSUCH"])
    with pytest.raises(UsageError, match="colour"):
        setup.start_training(["FPT"], colour="red")
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="there are no prices"):
        ColabTrainingSetup(tmp_path).start_training(["FPT"])
    assert not list(tmp_path.glob("workspace"))


def test_a_full_drive_is_refused(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "LEAST_DRIVE", 10**18)
    with pytest.raises(UsageError, match="are needed"):
        ColabTrainingSetup(drive, tmp_path).initialize()


def test_an_old_torch_is_refused(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colab, "LEAST_TORCH", (99, 0))
    with pytest.raises(UsageError, match=r"is older than 99\.0"):
        ColabTrainingSetup(drive, tmp_path).initialize()


def test_a_drive_that_cannot_be_mounted_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive" / "MyDrive" / "vnquant")
    setup = ColabTrainingSetup(colab.DRIVE, tmp_path)
    with pytest.raises(RetryableError, match="could not be mounted"):
        setup.initialize()


def test_the_notebook_process_needs_the_standard_library_only() -> None:
    code = "import sys, vnquant.colab; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {"torch", "pandas", "numpy", "pydantic", "click", "docker", "psutil"}
    assert not ours & set(loaded)
