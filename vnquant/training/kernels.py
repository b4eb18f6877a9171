"""The functions that do a training step's work, plain or compiled.

Compiling layer by layer instead of the whole step costs one compilation for every ensemble depth:
the layers of a 4-, 5- and 6-layer model are the same code on the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from vnquant.stockformer.losses import per_model_loss
from vnquant.stockformer.model import PLAIN, Pieces
from vnquant.training.optimizer import adamw_

COMPILED_WIDTHS = 2
"""Distinct stack widths inside a round when compiled: each costs a compilation."""


class Kernels(NamedTuple):
    """What a step calls. ``widths`` limits how many different widths a round may have."""

    pieces: Pieces = PLAIN
    loss: Callable[..., torch.Tensor] = per_model_loss
    update: Callable[..., torch.Tensor] = adamw_
    widths: int | None = None


PLAIN_KERNELS = Kernels()


def compiled_kernels() -> Kernels:
    """The same functions through `torch.compile`, with static shapes."""
    # A new width or depth is a new shape; the default limit of 8 would fall back to eager.
    torch._dynamo.config.recompile_limit = 64

    def compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return torch.compile(function, dynamic=False, fullgraph=True)

    return Kernels(
        pieces=Pieces(*(compiled(f) for f in PLAIN)),
        loss=compiled(per_model_loss),
        update=compiled(adamw_),
        widths=COMPILED_WIDTHS,
    )


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
