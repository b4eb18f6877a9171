"""Kernels compiled beforehand: without a GPU, in parts, and with ready-made C modules."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from vnquant.events import Events
from vnquant.spec import MemberSpec, ModelSpec, PretrainSpec, RunSpec
from vnquant.stages import kernels, run_stages
from vnquant.stages.context import Context, Options
from vnquant.training.precompile import batches_of
from vnquant.workspace import Workspace

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
SPEC = RunSpec(
    symbols=("FPT", "VCB"),
    data={"start": "2019-01-01"},
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
    model=ModelSpec(d_model=64, heads=4, d_ff=128, members=(MemberSpec(layers=2, dropout=0.1),)),
    training={"epochs": 1, "batch_size": 128},
)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    path.write_text(SPEC.canonical_json())
    return path


def precompile(
    spec: Path, cache: Path, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vnquant.training.precompile", str(spec), *words],
        env={**os.environ, "TRITON_CACHE_DIR": str(cache), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def compiled(cache: Path) -> set[str]:
    """Kernels by name and key."""
    return {f"{p.parent.name}/{p.name}" for p in cache.glob("*/*.cubin")}


@needs_triton
def test_processes_make_together_what_one_makes(spec: Path, tmp_path: Path) -> None:
    for count in "13":
        done = precompile(spec, tmp_path / count, "--capability", "80", "--processes", count)
        assert done.returncode == 0, done.stderr
    names = {path.split("/")[1].removesuffix(".cubin") for path in compiled(tmp_path / "1")}
    assert {"residual_feed_forward_backward", "attention", "adamw", "embed"} <= names
    assert compiled(tmp_path / "1") == compiled(tmp_path / "3")


@needs_triton
def test_every_kernel_belongs_to_one_part(spec: Path, tmp_path: Path) -> None:
    counts = []
    for part in range(3):
        code = (
            "import sys; from vnquant.spec import load_spec;"
            "from vnquant.training.precompile import compile_for;"
            f"print(compile_for(load_spec(sys.argv[1]), 80, {part}, 3))"
        )
        words = [sys.executable, "-c", code, str(spec)]
        variables = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(words, env=variables, capture_output=True, text=True, check=True)
        counts.append(int(done.stdout))
        assert sum(counts) == len(compiled(tmp_path / "cache"))
    assert min(counts) > 0


@needs_triton
def test_other_gpus_get_other_code(spec: Path, tmp_path: Path) -> None:
    made = {}
    for capability in ("80", "90"):
        precompile(spec, tmp_path / capability, "--capability", capability)
        made[capability] = compiled(tmp_path / capability)
    names = [{key.split("/")[1] for key in keys} for keys in made.values()]
    assert names[0] == names[1]
    assert made["80"]
    assert not made["80"] & made["90"]


def test_without_a_gpu_there_is_nothing_to_do(spec: Path, tmp_path: Path) -> None:
    done = precompile(spec, tmp_path / "cache", PATH="/nonexistent")
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "cache").exists()


@needs_triton
@needs_compiler
def test_ready_made_modules_are_found_and_missing_ones_named(spec: Path, tmp_path: Path) -> None:
    modules, empty = tmp_path / "modules", tmp_path / "empty"
    empty.mkdir()
    words = ("--capability", "80")
    made = precompile(spec, tmp_path / "a", *words, "--collect", str(modules))
    assert made.returncode == 0, made.stderr
    assert list(modules.glob("*.so"))
    # Modules depend on signatures alone: another GPU and a fresh cache need no others.
    words = ("--capability", "90")
    assert precompile(spec, tmp_path / "b", *words, "--check", str(modules)).returncode == 0
    missing = precompile(spec, tmp_path / "c", *words, "--check", str(empty))
    assert missing.returncode != 0
    assert "no ready-made Triton module" in missing.stderr
    assert str(empty) in missing.stderr


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    workspace = Workspace(tmp_path / "w").create()
    run = workspace.run(SPEC)
    run.prepare()
    return Context(workspace, run, Events(run.path / "events.jsonl"), Options())


def with_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """A machine whose driver has its tool; torch sees no GPU all the same."""
    program(folder / "bin", "nvidia-smi", answer)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "cache"))


@needs_triton
def test_a_run_compiles_while_it_reads_prices(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu(tmp_path, monkeypatch, "echo 9.0")
    run_stages(context, ["train"])
    (event,) = [e for e in events(context) if e["event"] == "precompiled"]
    assert "failed" not in event
    assert compiled(tmp_path / "cache")
    context.precompiling = None
    run_stages(context, ["train"])
    assert context.precompiling is None  # all is trained


@needs_triton
def test_a_failed_head_start_costs_the_run_nothing(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu(tmp_path, monkeypatch, "echo 1.0")  # no compiler knows of it
    run_stages(context, ["train"])
    (event,) = [e for e in events(context) if e["event"] == "precompiled"]
    assert event["failed"]
    assert context.stage("train").done() is not None


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"compiled": False}])
def test_nothing_is_compiled_that_will_not_run(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    with_gpu(tmp_path, monkeypatch, "exit 1")
    context.options = Options(**options)
    assert kernels.start(context) is None


def events(context: Context) -> list[dict[str, object]]:
    from vnquant.events import read_events

    return list(read_events(context.run.path / "events.jsonl"))


@needs_triton
def test_the_pooled_phase_has_kernels_of_its_own(tmp_path: Path) -> None:
    """Another number of inputs, and only where the fused kernels take so many."""
    made = {}
    for embedding in ("none", "exchange", "symbol"):
        symbols = tuple(f"S{i:02d}" for i in range(15))
        pretrain = PretrainSpec(batch_size=256, embedding=embedding)
        path = tmp_path / f"{embedding}.json"
        update = {"symbols": symbols, "pretrain": pretrain}
        path.write_text(SPEC.model_copy(update=update).canonical_json())
        done = precompile(path, tmp_path / embedding, "--capability", "90")
        assert done.returncode == 0, done.stderr
        made[embedding] = compiled(tmp_path / embedding)
    assert made["none"] < made["exchange"]
    assert {key.split("/")[1] for key in made["exchange"] - made["none"]} == {"embed.cubin"}
    assert made["symbol"] == made["none"], "65 inputs are for the compiled kernels"


def test_a_run_has_the_batch_sizes_of_its_phases() -> None:
    assert batches_of(SPEC) == [128]
    assert batches_of(SPEC.model_copy(update={"pretrain": PretrainSpec()})) == [256, 128]
