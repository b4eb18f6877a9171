"""Watch memory, warn early, and choose how many models fit in one stack."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from vnquant.stockformer.layout import Shape

WARN_AT = 0.85
NARROW_AT = 0.93
CPU_WIDTH_CAP = 16  # wider stacks gained nothing on a CPU (benchmarks/reports), and cost memory

OUT_OF_MEMORY = (
    "can't allocate memory",  # torch on a CPU
    "CUDA error: out of memory",  # the driver, as for a graph
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)


class NarrowStack(Exception):
    """Memory is about to run out: save, and go on with half as many models at a time."""


def memory_limit() -> int:
    """Bytes this process may use: the machine's, or its cgroup's where that is lower."""
    limit = psutil.virtual_memory().total
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = min(limit, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return limit


def release_memory() -> None:
    """Return freed memory to the system, so that a narrower stack is really smaller."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        # Without glibc (musl) there is nothing to trim: freed memory goes back by itself.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@dataclass
class MemoryMonitor:
    """Peaks of host and device memory; one sample costs some 50 microseconds.

    Args:
        report: called with (kind, fields) when a threshold is crossed.
        limit: bytes of host memory this process may use.
    """

    report: Callable[..., None]
    limit: int
    peak_rss: int = 0
    peak_cuda: int = 0
    warned: bool = False

    def sample(self) -> float:
        """Take one sample; returns the larger used fraction of host and device memory."""
        rss = psutil.Process(os.getpid()).memory_info().rss
        self.peak_rss = max(self.peak_rss, rss)
        used = rss / self.limit
        if torch.cuda.is_available():
            self.peak_cuda = max(self.peak_cuda, torch.cuda.max_memory_allocated())
            total = torch.cuda.get_device_properties(0).total_memory
            used = max(used, torch.cuda.memory_allocated() / total)
        return used

    def check(self, *, can_narrow: bool) -> None:
        """Warn at 85 %, and raise NarrowStack at 93 % if there is anything to narrow."""
        used = self.sample()
        if used >= WARN_AT and not self.warned:
            self.warned = True
            self.report("memory_warning", used=round(used, 3), limit=self.limit)
        if used >= NARROW_AT and can_narrow:
            raise NarrowStack

    def to_dict(self) -> dict[str, Any]:
        return {
            "limit_bytes": self.limit,
            "peak_rss_bytes": self.peak_rss,
            "peak_cuda_bytes": self.peak_cuda,
        }


def bytes_per_model(shape: Shape, batch_size: int, dtype: torch.dtype) -> int:
    """An estimate of what one more model in the stack costs in training.

    Parameters: weights, two moments, best slice, gradient and update scratch in float32, and a
    copy in the computing dtype. Activations: what autograd keeps of a layer, counted on the
    forward pass of `vnquant.stockformer.model` (about 20 d_model + 7 d_ff values per token).
    """
    width = torch.empty(0, dtype=dtype).element_size()
    parameters = shape.row * (9 * 4 + 2 * width)
    tokens = batch_size * shape.lookback
    per_token = shape.layers * (20 * shape.d_model + 7 * shape.d_ff) + 3 * shape.features
    return int(parameters + 1.2 * tokens * per_token * max(width, 2))


def choose_width(
    shape: Shape, batch_size: int, dtype: torch.dtype, device: torch.device, limit: int
) -> int:
    """How many models to train at a time: what fits in 70 % of the free memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return max(1, int(0.7 * free / bytes_per_model(shape, batch_size, dtype)))
    rss = psutil.Process(os.getpid()).memory_info().rss
    free = min(psutil.virtual_memory().available, max(limit - rss, 0))
    return min(CPU_WIDTH_CAP, max(1, int(0.7 * free / bytes_per_model(shape, batch_size, dtype))))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed: torch's own, a library's, or a graph's while it was captured.

    Leaving a capture that has failed raises another error, with the cause in its context.
    """
    while error is not None:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or any(t in text for t in OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False
