"""The command as users meet it: flags, exit codes, the whole job, kills and resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from vnquant import cli_options
from vnquant.__main__ import commands as every_command
from vnquant.cli_reference import PAGE, commands, page
from vnquant.spec import PRESETS, MemberSpec, ModelSpec, RunSpec
from vnquant.stages import ALL, STAGES

FLAGS = Path(__file__).parent / "golden" / "flags.json"


def vnquant(*words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vnquant", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def flags() -> dict[str, list[str]]:
    return {
        name: sorted(flag for p in command.params if isinstance(p, click.Option) for flag in p.opts)
        for name, command in commands(every_command(), ("vnquant",))
    }


def test_the_public_flag_set_is_frozen() -> None:
    assert flags() == json.loads(FLAGS.read_text())


def test_stage_names_agree() -> None:
    assert cli_options.STAGE_NAMES == STAGES


def test_the_command_page_is_in_step() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "--symbols", "FTP"], 2, "FPT"),
        (["train", "--epochs", "none"], 2, "epochs"),
        (["train", "--prices", "nowhere.parquet", "--symbols", "FPT"], 3, "nowhere.parquet"),
        (["train", "--symbols", "FPT", "--universe", "vn102"], 2, "--universe"),
        (["run", "train", "--spec", "nowhere.json"], 2, "nowhere.json"),
        (["forecast"], 2, "nothing is deployed"),
        (["registry", "rollback"], 2, "no earlier set"),
        (["unheard-of"], 2, "No such command"),
    ],
)
def test_mistakes_end_with_a_code_and_a_sentence(
    words: list[str], code: int, says: str, tmp_path: Path
) -> None:
    extra = ["--workspace", str(tmp_path / "w")] if "--help" not in words else []
    done = vnquant(*words, *(extra if words[0] != "unheard-of" else []))
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec small enough to train in seconds, on embedded prices of one bank."""
    spec = RunSpec(
        symbols=("FPT", "VCB"),
        data={"start": "2019-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),)),
        training={"epochs": 6, "patience": None},
    )
    path = tmp_path_factory.mktemp("spec") / "run.json"
    path.write_text(spec.canonical_json())
    return path


def weights(workspace: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in workspace.glob("runs/*/train/models/*.safetensors")}


def run_words(spec: Path, workspace: Path, *more: str) -> list[str]:
    return ["run", *(more or ("all",)), "--spec", str(spec), "--workspace", str(workspace)]


def test_the_whole_job_then_forecast_verify_and_nothing_to_redo(tiny: Path, tmp_path: Path) -> None:
    done = vnquant(*run_words(tiny, tmp_path / "w"), "--force", "--force-reason", "a test")
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    manifest = json.loads((run / "manifest.json").read_text())
    assert set(manifest["stages"]) == set(ALL)
    train = manifest["stages"]["train"]
    assert {"device", "threads", "seconds", "memory", "seed", "packages", "code"} <= set(train)
    assert (run / "ingest" / "quality.md").read_text().startswith("# Quality report")
    words = ("--workspace", str(tmp_path / "w"))
    forecast = vnquant("forecast", "--symbols", "FPT", "VCB", "--json", *words)
    rows = json.loads(forecast.stdout)
    assert [r["symbol"] for r in rows] == ["FPT", "VCB"]
    for row in rows:
        assert 0.5 <= row["confidence"] < 1
        assert row["direction"] == ("up" if row["probability_up"] > 0.5 else "down")
        assert all(row[f"price_{h}"] > 0 for h in range(1, 6))
    assert vnquant("registry", "verify", *words).returncode == 0
    before = weights(tmp_path / "w")
    again = vnquant(*run_words(tiny, tmp_path / "w", "train"))
    assert again.returncode == 0
    assert "already finished" in again.stderr
    assert weights(tmp_path / "w") == before


@pytest.mark.slow
def test_sigkill_anywhere_resumes_to_the_same_bits(tiny: Path, tmp_path: Path) -> None:
    """Kill with SIGKILL at eight different moments; the final weights must not know it."""
    straight = vnquant(*run_words(tiny, tmp_path / "straight", "train"), "--checkpoint-epochs", "1")
    assert straight.returncode == 0, straight.stderr
    words = [
        *run_words(tiny, tmp_path / "killed", "train"),
        *("--checkpoint-epochs", "1", "--checkpoint-minutes", "0.01"),
    ]
    kills = 0
    for delay in (2.6, 3.0, 3.2, 3.4, 3.6, 3.8, 4.0, 4.2):
        child = subprocess.Popen(
            [sys.executable, "-m", "vnquant", *words],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(delay)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.wait()
    done = vnquant(*words)
    assert done.returncode == 0, done.stderr
    assert kills > 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "straight")


def test_short_memory_narrows_the_stack_and_the_run_goes_on(tiny: Path, tmp_path: Path) -> None:
    """A limit below what the interpreter itself needs: narrowed to one model, warned, finished."""
    limits = ("--memory-limit", "100MB", "--stack-width", "2")
    done = vnquant(*run_words(tiny, tmp_path / "w", "train"), *limits)
    assert done.returncode == 0, done.stderr
    assert "narrowed to 1 models" in done.stderr
    assert "memory:" in done.stderr
    assert sorted(weights(tmp_path / "w")) == ["FPT.m0.safetensors", "VCB.m0.safetensors"]


def test_two_processes_do_not_work_on_one_run(tiny: Path, tmp_path: Path) -> None:
    words = run_words(tiny, tmp_path / "w", "train")
    first = subprocess.Popen([sys.executable, "-m", "vnquant", *words], stderr=subprocess.DEVNULL)
    lock = tmp_path / "w" / "runs" / RunSpec(**json.loads(tiny.read_text())).run_id / "lock"
    until = time.monotonic() + 60
    while not (lock.exists() and lock.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    second = vnquant(*words)
    assert first.wait(timeout=120) == 0
    assert second.returncode == 5, second.stderr
    assert "another process" in second.stderr


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_signal_saves_and_leaves(
    signum: int, code: int, tiny: Path, tmp_path: Path
) -> None:
    text = json.loads(tiny.read_text())
    text["training"]["epochs"] = 500
    spec = tmp_path / "long.json"
    spec.write_text(json.dumps(text))
    words = run_words(spec, tmp_path / "w", "train")
    child = subprocess.Popen(
        [sys.executable, "-m", "vnquant", *words], stderr=subprocess.PIPE, text=True
    )
    events = tmp_path / "w" / "runs" / RunSpec(**text).run_id / "events.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if events.exists() and '"epoch"' in events.read_text():
            break
        time.sleep(0.05)
    child.send_signal(signum)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert "checkpoint is saved" in err
    assert list(events.parent.glob("train/checkpoints/*.json"))


def test_presets_are_those_of_the_plan() -> None:
    base, small = PRESETS["base"], PRESETS["small"]
    assert (base.d_model, base.heads, base.d_ff) == (128, 8, 512)
    assert [(m.layers, m.dropout) for m in base.members] == [(4, 0.10), (5, 0.15), (6, 0.20)]
    assert (small.d_model, small.heads, {m.layers for m in small.members}) == (64, 4, {2})
