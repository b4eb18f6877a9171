"""What must hold on an NVIDIA GPU. CI has none; the last run is a report in benchmarks/reports.

Run with ``python -m pytest -m gpu tests/gpu``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from vnquant.events import Events, read_events
from vnquant.spec import MemberSpec, ModelSpec, RunSpec, TrainingSpec
from vnquant.stages import run_stage
from vnquant.stages.context import Context, Options
from vnquant.stockformer.files import load_model
from vnquant.stockformer.layout import Shape
from vnquant.training.data import ModelId, TrainingData
from vnquant.training.kernels import (
    PLAIN_KERNELS,
    Kernels,
    choose_kernels,
    compiled_kernels,
    fused_kernels,
)
from vnquant.training.ledger import Status
from vnquant.training.memory import release_memory
from vnquant.training.stack import Stack
from vnquant.workspace import Workspace

pytestmark = pytest.mark.gpu

MODEL = ModelSpec(d_model=64, heads=4, d_ff=256, members=(MemberSpec(layers=3, dropout=0.1),))
SHAPE = Shape.of(MODEL, 0, features=50, lookback=60, horizon=5)
SYMBOLS = [f"S{i:02d}" for i in range(32)]
WIDE = RunSpec(
    symbols=("ACB", "FPT", "HPG", "MBB", "MWG", "SSI", "VCB", "VNM"),
    data={"start": "2019-01-01"},
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
    model=MODEL,
    training={"epochs": 1, "patience": None, "batch_size": 128},
)
FUSED_CHECK = Path(__file__).parents[1] / "stockformer" / "fused_check.py"


@pytest.fixture(scope="module", autouse=True)
def _repeatable() -> None:
    from vnquant.accelerators import cuda

    cuda.configure(TrainingSpec(), threads=None, compiled=None)


def made_data(device: str, dtype: torch.dtype) -> TrainingData:
    """Noise with a planted relation; histories of 100 to 131 windows."""
    make = torch.Generator().manual_seed(0)
    rows = 260
    x = torch.randn(len(SYMBOLS) * rows, 50, generator=make)
    y = 0.5 * x[:, :1] + torch.randn(x.shape[0], 5, generator=make)
    starts = {s: i * rows + 59 for i, s in enumerate(SYMBOLS)}
    return TrainingData(
        x.to(device, dtype),
        y.to(device),
        {s: at + np.arange(100 + i) for i, (s, at) in enumerate(starts.items())},
        {s: at + 150 + np.arange(50) for s, at in starts.items()},
        60,
    )


def trained(
    symbols: Sequence[str],
    kernels: Kernels,
    *,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    epochs: int = 3,
    spoil: str | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, Status]]:
    """Weights on the CPU and the fate of every symbol."""
    data = made_data(device, dtype)
    if spoil is not None:
        data.targets[data.train[spoil]] = float("nan")
    models = [ModelId(s, 0) for s in symbols]
    models.sort(key=lambda m: -len(data.train[m.symbol]))
    stack = Stack(SHAPE, models, MODEL, TrainingSpec(epochs=epochs, patience=None), data, kernels)
    stack.initialise()
    for _ in range(epochs):
        for _ in range(stack.round_steps):
            stack.train_step()
        stack.end_round()
    weights = {m.symbol: stack.weights[i].cpu() for i, m in enumerate(stack.models)}
    return weights, {m.symbol: stack.ledger[i].status for i, m in enumerate(stack.models)}


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_the_fused_kernels_are_chosen_here() -> None:
    assert choose_kernels(SHAPE, torch.device("cuda"), torch.bfloat16).gradient is not None
    assert choose_kernels(SHAPE, torch.device("cuda"), torch.float32).gradient is None


def test_fused_kernels_agree_with_autograd() -> None:
    done = subprocess.run(
        [sys.executable, str(FUSED_CHECK)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["half"]["gradient"] < 1.5 * found["half"]["plain_gradient"] < 0.03
    assert found["adamw"]["difference"] < 1e-6
    assert found["adamw"]["frozen_moved"] == 0.0
    for case in ("small", "one_window_tail", "wide_heads"):
        # The kernels' float32 products run as TF32 on tensor cores.
        assert found[case]["worst_parameter"] < 5e-3, case
        assert found[case]["key_bias"] == found[case]["padding"] == 0.0


@pytest.mark.parametrize("width", [8, 32])
def test_a_model_does_not_depend_on_its_stack(width: int) -> None:
    alone, _ = trained(SYMBOLS[:1], fused_kernels())
    among, _ = trained(SYMBOLS[:width], fused_kernels())
    other, _ = trained(SYMBOLS[1:2], fused_kernels())
    near = distance(among["S00"], alone["S00"])
    assert near < 0.02, "bfloat16 products may be summed in another order, no more"
    assert distance(other["S01"], alone["S00"]) > 20 * near


def test_the_same_stack_gives_the_same_bits() -> None:
    first, _ = trained(SYMBOLS[:8], fused_kernels())
    second, _ = trained(SYMBOLS[:8], fused_kernels())
    assert all(torch.equal(first[s], second[s]) for s in first)


def test_graphs_change_nothing() -> None:
    graphs, _ = trained(SYMBOLS[:8], fused_kernels())
    plain, _ = trained(SYMBOLS[:8], fused_kernels()._replace(graphs=False))
    assert all(torch.equal(graphs[s], plain[s]) for s in plain)


@pytest.mark.parametrize("name", ["fused", "compiled"])
def test_fast_kernels_learn_what_the_plain_ones_learn(name: str) -> None:
    kernels = fused_kernels() if name == "fused" else compiled_kernels()
    plain, _ = trained(SYMBOLS[:4], PLAIN_KERNELS)
    fast, _ = trained(SYMBOLS[:4], kernels)
    worst = max(distance(fast[s], plain[s]) for s in plain)
    assert worst < 0.03


def test_cpu_and_gpu_agree_in_float32() -> None:
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        here, _ = trained(SYMBOLS[:3], PLAIN_KERNELS, dtype=torch.float32)
        there, _ = trained(SYMBOLS[:3], PLAIN_KERNELS, device="cpu", dtype=torch.float32)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    assert max(distance(here[s], there[s]) for s in here) < 2e-3


def test_one_diverging_symbol_is_frozen_and_the_others_do_not_notice() -> None:
    clean, _ = trained(SYMBOLS[:8], fused_kernels())
    spoilt, fate = trained(SYMBOLS[:8], fused_kernels(), spoil="S03")
    assert fate["S03"] == Status.DIVERGED
    assert all(fate[s] == Status.COMPLETE for s in fate if s != "S03")
    assert all(torch.equal(spoilt[s], clean[s]) for s in clean if s != "S03")


def spec_file(folder: Path, epochs: int) -> Path:
    spec = RunSpec(
        symbols=("FPT", "HPG", "VCB"),
        data={"start": "2019-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=MODEL,
        training={"epochs": epochs, "patience": None},
    )
    path = folder / "run.json"
    path.write_text(spec.canonical_json())
    return path


def weights(workspace: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in workspace.glob("runs/*/train/models/*.safetensors")}


def test_sigkill_and_resume_gives_the_same_bits(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, epochs=60)

    def words(name: str) -> list[str]:
        own = ["--spec", str(spec), "--workspace", str(tmp_path / name), "--device", "cuda"]
        often = ["--checkpoint-minutes", "0.005", "--checkpoint-epochs", "5"]
        return [sys.executable, "-m", "vnquant", "run", "train", *own, *often]

    subprocess.run(words("straight"), check=True, stderr=subprocess.DEVNULL)
    kills = 0
    for _ in range(3):
        child = subprocess.Popen(words("killed"), stderr=subprocess.DEVNULL)
        folder = tmp_path / "killed"
        before = len(list(folder.glob("runs/*/train/checkpoints/*.json")))
        until = time.monotonic() + 90
        while child.poll() is None and time.monotonic() < until:
            names = sorted(folder.glob("runs/*/train/checkpoints/*.json"))
            if names and len(names) != before:
                break
            time.sleep(0.02)
        time.sleep(0.3)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.wait()
    subprocess.run(words("killed"), check=True, stderr=subprocess.DEVNULL)
    assert kills >= 1
    assert weights(tmp_path / "killed") == weights(tmp_path / "straight")


def train_with(
    spec: Path, workspace: Path, cache: Path, variables: dict[str, str]
) -> list[dict[str, object]]:
    """Train in a process with a cache of its own for Triton; the run's events."""
    words = ["--spec", str(spec), "--workspace", str(workspace), "--device", "cuda"]
    subprocess.run(
        [sys.executable, "-m", "vnquant", "run", "train", *words],
        env={**os.environ, "TRITON_CACHE_DIR": str(cache), **variables},
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return list(read_events(next(workspace.glob("runs/*/events.jsonl"))))


def kernels_in(cache: Path) -> set[str]:
    return {p.parent.name for p in cache.glob("*/*.cubin")}


def precompile(spec: Path, cache: Path, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "vnquant.training.precompile", str(spec), *words],
        env={**os.environ, "TRITON_CACHE_DIR": str(cache)},
        check=True,
    )


def test_what_is_compiled_beforehand_is_what_a_run_needs(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, epochs=2)
    precompile(spec, tmp_path / "alone")
    events = train_with(spec, tmp_path / "run", tmp_path / "cache", {})
    (event,) = [e for e in events if e["event"] == "precompiled"]
    assert "failed" not in event
    assert kernels_in(tmp_path / "cache") == kernels_in(tmp_path / "alone") != set()


def test_without_a_compiler_ready_made_modules_give_the_same_bits(tmp_path: Path) -> None:
    spec, modules = spec_file(tmp_path, epochs=2), tmp_path / "modules"
    precompile(spec, tmp_path / "building", "--capability", "80", "--collect", str(modules))
    train_with(spec, tmp_path / "with", tmp_path / "cache1", {})
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").symlink_to(shutil.which("nvidia-smi") or "/nonexistent")
    alone = {"PATH": str(tools), "CC": "", "VNQUANT_LAUNCHERS": str(modules)}
    events = train_with(spec, tmp_path / "without", tmp_path / "cache2", alone)
    assert not [e for e in events if e["event"] == "plain_kernels"]
    assert weights(tmp_path / "without") == weights(tmp_path / "with")


def train_stage(
    folder: Path, *, compiled: bool, width: int = 8
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Stage train of eight symbols; the weights, and the widths it was narrowed to."""
    workspace = Workspace(folder).create()
    run = workspace.run(WIDE)
    run.prepare()
    events = run.path / "events.jsonl"
    options = Options(device="cuda", compiled=compiled, stack_width=width)
    run_stage(Context(workspace, run, Events(events), options), "train")
    models = (run.stage("train") / "models").glob("*.safetensors")
    narrowed = [e["width"] for e in read_events(events) if e["event"] == "narrowed"]
    return {p.stem: load_model(p).row for p in models}, narrowed


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "fused"])
def test_out_of_memory_halves_the_stack_and_the_run_ends_well(
    tmp_path: Path, compiled: bool
) -> None:
    """Torch may take more than two models need and less than eight; the libraries' fixed
    workspaces are part of both."""
    needed = {}
    for width in (2, 8):
        release_memory()
        torch.cuda.reset_peak_memory_stats()
        folder = tmp_path / f"free-{width}"
        expected, narrowed = train_stage(folder, compiled=compiled, width=width)
        assert narrowed == []
        needed[width] = torch.cuda.max_memory_allocated()
    assert needed[8] > 1.3 * needed[2], "nothing to be saved by narrowing"
    release_memory()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.5 * (needed[2] + needed[8]) / total)
    try:
        found, narrowed = train_stage(tmp_path / "short", compiled=compiled)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        release_memory()
    assert narrowed
    assert narrowed[0] == 4
    assert set(found) == set(expected)
    assert max(distance(found[m], expected[m]) for m in found) < 0.02
