"""One tiny trained run that the tests of this package copy, and never change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from vnquant.events import Events, read_events
from vnquant.market.sources import open_source
from vnquant.spec import GateSpec, MemberSpec, ModelSpec, RunSpec
from vnquant.stages import run_stages
from vnquant.stages.context import Context, Options
from vnquant.stockformer.files import load_model
from vnquant.workspace import Workspace

SPEC = RunSpec(
    symbols=("FPT", "VCB"),
    data={"start": "2019-01-01"},
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
    model=ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),)),
    training={"epochs": 1, "patience": None},
    gate=GateSpec(min_accuracy=1.0),  # nobody passes this
)


def context(path: Path, spec: RunSpec = SPEC, **options: Any) -> Context:
    workspace = Workspace(path).create()
    run = workspace.run(spec)
    run.prepare()
    return Context(workspace, run, Events(run.path / "events.jsonl"), Options(**options))


def happened(ctx: Context, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_events(ctx.run.path / "events.jsonl") if e["event"] == kind]


def killed(ctx: Context, stage: str, when: Callable[[], bool], *more: str) -> None:
    """Run a stage in a process of its own and kill that as soon as ``when`` says so."""
    spec = ctx.run.path / "spec.json"
    words = ["run", stage, "--spec", str(spec), "--quiet", "--checkpoint-epochs", "1", *more]
    child = subprocess.Popen(
        [sys.executable, "-m", "vnquant", *words, "--workspace", str(ctx.workspace.path)],
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while child.poll() is None and not when() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it had finished before the kill"


def rows(ctx: Context) -> dict[str, torch.Tensor]:
    """The parameter row of every model that was trained."""
    folder = ctx.stage("train") / "models"
    return {p.stem: load_model(p).row for p in folder.glob("*.safetensors")}


def started(ctx: Context) -> list[str]:
    return [e["stage"] for e in happened(ctx, "stage_started")]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "w"
    run_stages(context(path), ["evaluate"])
    return path


@pytest.fixture
def ctx(trained: Path, tmp_path: Path) -> Context:
    shutil.copytree(trained, tmp_path / "w")
    return context(tmp_path / "w")


@pytest.fixture
def raw() -> pd.DataFrame:
    """The bars that the trained run was made from."""
    return open_source("synthetic", None).load(SPEC.symbols, start=SPEC.data.start, end=None)
