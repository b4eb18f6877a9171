"""Replay a training step as a CUDA graph: hundreds of launches cost one.

A step may be captured when everything that changes between steps lies in tensors at fixed
addresses. The first steps run as usual, which compiles kernels and fills the allocator's cache.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

WARM_UP = 2


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Collect garbage now, and none inside.

    What a capture must not see, such as the end of another stack's graph, would otherwise happen
    whenever Python's collector runs.
    """
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class StepGraphs:
    """Runs ``step(width)``; after a few calls with one width, replays it from a graph.

    Where the step's tensors are replaced, it takes a new one of these: graphs hold addresses.
    """

    def __init__(self, step: Callable[[int], None], *, enabled: bool) -> None:
        self._step = step
        self._enabled = enabled
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._calls: dict[int, int] = {}

    def __call__(self, width: int) -> None:
        calls = self._calls[width] = self._calls.get(width, 0) + 1
        if not self._enabled or calls <= WARM_UP:
            self._step(width)
            return
        graph = self._graphs.get(width)
        if graph is None:
            graph = torch.cuda.CUDAGraph()
            # Widths share memory: their graphs never run at the same time.
            pool = next((g.pool() for g in self._graphs.values()), None)
            with _no_garbage(), torch.cuda.graph(graph, pool=pool):
                self._step(width)
            self._graphs[width] = graph
        graph.replay()
