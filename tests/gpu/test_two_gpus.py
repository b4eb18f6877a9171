"""Two GPUs of one host beside one of them: the same bits. CI has none; see benchmarks/reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.test_gpu import WIDE, weights
from vnquant.events import Events, read_events
from vnquant.stages import run_stage
from vnquant.stages.context import Context, Options
from vnquant.workspace import Workspace, read_json

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed"),
]


def train(path: Path, teams: int) -> Context:
    workspace = Workspace(path).create()
    run = workspace.run(WIDE)
    run.prepare()
    ctx = Context(workspace, run, Events(run.path / "events.jsonl"), Options(teams=teams))
    run_stage(ctx, "train")
    return ctx


def test_two_gpus_train_side_by_side_and_change_no_bit(tmp_path: Path) -> None:
    both = train(tmp_path / "both", 2)
    train(tmp_path / "one", 1)
    reports = read_json(both.run.path / "manifest.json")["stages"]["train"]["teams"]
    assert [r["units"] for r in reports] == [1, 1]
    assert all(r["peak_cuda_bytes"] > 0 for r in reports)
    events = read_events(both.run.path / "events.jsonl")
    assert [e["gpu"] for e in events if e["event"] == "team_started"] == ["0", "1"]
    assert weights(tmp_path / "both") == weights(tmp_path / "one")
