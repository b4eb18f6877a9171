"""The functions that do a training step's work, plain or compiled.

Compiling layer by layer instead of the whole step costs one compilation for every ensemble depth:
the layers of a 4-, 5- and 6-layer model are the same code on the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from vnquant.accelerators import launchers
from vnquant.stockformer import cpu_pieces, cpu_step
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.losses import per_model_loss
from vnquant.stockformer.model import PLAIN, Drop, Pieces
from vnquant.training.optimizer import adamw_

COMPILED_WIDTHS = 2
"""Distinct stack widths inside a round when compiled: each costs a compilation."""
GRAPH_WIDTHS = 4
"""The same for CUDA graphs: each costs a capture."""


class Gradient(Protocol):
    """`vnquant.stockformer.fused.gradient` or `vnquant.stockformer.cpu_step.gradient`."""

    def __call__(
        self,
        shape: Shape,
        rows: torch.Tensor,
        x: torch.Tensor,
        drop: Drop,
        loss_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


Outputs = Callable[[Shape, torch.Tensor, torch.Tensor], torch.Tensor]


class Kernels(NamedTuple):
    """What a step calls. ``widths`` limits how many different widths a round may have."""

    pieces: Pieces = PLAIN
    loss: Callable[..., torch.Tensor] = per_model_loss
    update: Callable[..., torch.Tensor] = adamw_
    widths: int | None = None
    gradient: Gradient | None = None
    """Loss and gradient by hand instead of autograd through ``pieces``."""
    outputs: Outputs | None = None
    """The forward pass without dropout, for validation; None: the plain one."""
    graphs: bool = False
    """Replay steps as CUDA graphs."""


PLAIN_KERNELS = Kernels()


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False, fullgraph=True)


def compiled_kernels() -> Kernels:
    """The same functions through `torch.compile`, with static shapes."""
    # A new width or depth is a new shape; the default limit of 8 would fall back to eager.
    torch._dynamo.config.recompile_limit = 64
    return Kernels(
        pieces=Pieces(*(_compiled(f) for f in PLAIN)),
        loss=_compiled(per_model_loss),
        update=_compiled(adamw_),
        widths=COMPILED_WIDTHS,
    )


def cpu_kernels() -> Kernels:
    """`vnquant.stockformer.cpu_step`, with what lies between its products compiled."""
    pieces = cpu_pieces.Pieces(*(_compiled(f) for f in cpu_pieces.Pieces()))
    return compiled_kernels()._replace(gradient=partial(cpu_step.gradient, pieces=pieces))


def fused_kernels() -> Kernels:
    """Hand-written Triton kernels, replayed as CUDA graphs: nothing is compiled per shape."""
    from vnquant.stockformer import fused
    from vnquant.training import triton_adamw

    return Kernels(
        update=triton_adamw.adamw_,
        widths=GRAPH_WIDTHS,
        gradient=fused.gradient,
        outputs=fused.outputs,
        graphs=True,
    )


def choose_kernels(shape: Shape, device: torch.device, dtype: torch.dtype) -> Kernels:
    """The fastest kernels for a stack of this shape: written by hand where they can be.

    That is in bfloat16 on a GPU and in float32 on a CPU; all else is compiled. Each needs a C
    compiler when it runs. Where there is none, the fused ones can do with the
    ready-made modules of an image; other sizes are computed with the plain kernels.
    """
    ready = None if launchers.compiler() else launchers.folder()
    if not launchers.compiler() and ready is None:
        return PLAIN_KERNELS
    if device.type == "cuda" and dtype == torch.bfloat16 and find_spec("triton") is not None:
        from vnquant.stockformer.fused_layers import supports

        if supports(shape):
            if ready is not None:
                launchers.use(ready)
            return fused_kernels()
    if ready:
        return PLAIN_KERNELS
    if device.type == "cpu" and dtype == torch.float32 and cpu_step.supports(shape):
        return cpu_kernels()
    return compiled_kernels()


def round_widths(steps: np.ndarray, limit: int | None) -> np.ndarray:
    """How many rows to compute at each step of a round: int64 ``[max(steps)]``.

    Args:
        steps: steps per epoch of each row, falling.
        limit: at most so many distinct widths, chosen to waste the fewest model steps; None: as
            many as there are distinct step counts, which wastes none.
    """
    exact = np.searchsorted(-steps, -np.arange(int(steps[0])), side="left").astype(np.int64)
    levels, lengths = np.unique(exact, return_counts=True)
    if limit is None or len(levels) <= limit:
        return exact
    # levels ascend; every exact width is rounded up to a chosen one. Dynamic programme over the
    # largest width of each group: cost[j] = cheapest cover of levels[:j+1].
    weighted = np.concatenate([[0], np.cumsum(lengths)])
    count = len(levels)
    cost = levels * weighted[1:]
    back = [[-1] * count]
    for _ in range(1, limit):
        options = cost[None, :] + levels[:, None] * (weighted[1:][:, None] - weighted[1:][None, :])
        options = np.where(np.arange(count)[None, :] < np.arange(count)[:, None], options, 2**62)
        choice = options.argmin(1)
        best = options[np.arange(count), choice]
        back.append([int(c) if b < k else -2 for c, b, k in zip(choice, best, cost, strict=True)])
        cost = np.minimum(cost, best)
    chosen, j, group = [], count - 1, limit - 1
    while j >= 0 and group >= 0:
        while group > 0 and back[group][j] == -2:
            group -= 1
        chosen.append(int(levels[j]))
        j, group = back[group][j], group - 1
    rounded = np.array(sorted(chosen))
    return rounded[np.searchsorted(rounded, exact)]
