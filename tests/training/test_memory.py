"""The memory monitor and the width of a stack, on made-up readings."""

from __future__ import annotations

import dataclasses
from typing import Any

import psutil
import pytest
import torch

from vnquant.stockformer.layout import Shape
from vnquant.training import memory
from vnquant.training.memory import (
    MemoryMonitor,
    NarrowStack,
    bytes_per_model,
    choose_width,
    is_out_of_memory,
)

SHAPE = Shape(features=50, lookback=60, horizon=5, d_model=64, heads=4, d_ff=256, layers=2)
CPU = torch.device("cpu")


class Reading:
    """Stands for psutil.Process: resident bytes as the test says."""

    rss = 0

    def __init__(self, _pid: int) -> None:
        pass

    def memory_info(self) -> Any:
        return self


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> tuple[MemoryMonitor, list[Any]]:
    said: list[Any] = []
    monkeypatch.setattr(psutil, "Process", Reading)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return MemoryMonitor(lambda kind, **fields: said.append((kind, fields)), limit=1000), said


def test_peaks_are_kept(monitor: Any) -> None:
    watch, _ = monitor
    for Reading.rss in (100, 700, 300):
        watch.check(can_narrow=True)
    assert watch.to_dict() == {"limit_bytes": 1000, "peak_rss_bytes": 700, "peak_cuda_bytes": 0}


def test_it_warns_once_at_85_percent(monitor: Any) -> None:
    watch, said = monitor
    for Reading.rss in (849, 850, 900):
        watch.check(can_narrow=True)
    assert said == [("memory_warning", {"used": 0.85, "limit": 1000})]


def test_it_narrows_at_93_percent_if_there_is_anything_to_narrow(monitor: Any) -> None:
    watch, _ = monitor
    Reading.rss = 930
    watch.check(can_narrow=False)
    with pytest.raises(NarrowStack):
        watch.check(can_narrow=True)


def test_a_wider_or_deeper_model_costs_more() -> None:
    small = bytes_per_model(SHAPE, 32, torch.float32)
    deeper = dataclasses.replace(SHAPE, layers=4)
    assert bytes_per_model(deeper, 32, torch.float32) > 1.5 * small
    assert bytes_per_model(SHAPE, 64, torch.float32) > 1.5 * small
    assert bytes_per_model(SHAPE, 32, torch.bfloat16) < small


def test_the_estimate_covers_what_a_step_keeps() -> None:
    """An estimate below the truth would end in the kernel's out-of-memory killer."""
    import numpy as np

    from vnquant.spec import MemberSpec, ModelSpec, TrainingSpec
    from vnquant.training.data import ModelId, TrainingData
    from vnquant.training.stack import Stack

    models = 6
    rows = models * 200
    data = TrainingData(
        torch.randn(rows, 50),
        torch.randn(rows, 5),
        {f"S{i}": np.arange(i * 200 + 60, i * 200 + 124) for i in range(models)},
        {f"S{i}": np.arange(i * 200 + 150, i * 200 + 160) for i in range(models)},
        60,
    )
    model = ModelSpec(d_model=64, heads=4, d_ff=256, members=(MemberSpec(layers=2, dropout=0.1),))
    stack = Stack(SHAPE, [ModelId(f"S{i}", 0) for i in range(models)], model, TrainingSpec(), data)
    stack.initialise()
    stack.train_step()
    state = sum(
        t.element_size() * t.nelement() for t in vars(stack).values() if isinstance(t, torch.Tensor)
    )
    kept = 0

    def count(t: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += t.element_size() * t.nelement()
        return t

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        stack.train_step()
    estimate = models * bytes_per_model(SHAPE, 32, torch.float32)
    # What stays while the backward pass runs, its own temporaries not counted.
    assert state + kept < estimate < 6 * (state + kept)


def test_the_width_fits_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bytes_per_model(SHAPE, 32, torch.float32)
    monkeypatch.setattr(psutil, "Process", Reading)
    Reading.rss = 0
    assert choose_width(SHAPE, 32, torch.float32, CPU, int(3.1 * one / 0.7)) == 3
    assert choose_width(SHAPE, 32, torch.float32, CPU, 1) == 1
    wide = choose_width(SHAPE, 32, torch.float32, CPU, 2**50)
    assert wide <= memory.CPU_WIDTH_CAP


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"
        ),
        # Not from torch's allocator: a graph, a library's workspace, a kernel's code.
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_every_kind_of_running_out_is_recognised(error: RuntimeError) -> None:
    assert is_out_of_memory(error)


def test_running_out_while_a_graph_is_captured_is_recognised() -> None:
    """Leaving the capture raises an error of its own, which hides the first."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert not is_out_of_memory(error)
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert is_out_of_memory(error)


def test_another_fault_is_not_taken_for_running_out() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(
        RuntimeError("CUDA error: an illegal memory access was encountered")
    )
