"""RankIC of every model of a stack on its validation windows, to choose the epoch that is kept.

What `vnquant.evaluation.correlation` says of a finished forecast table. Computed on the CPU in
float64: sums of ranks are exact there in any order, so the same stack chooses the same epoch.
"""

from __future__ import annotations

import torch

MIN_CROSS_SECTION = 5
"""Symbols that a session must have for a correlation to mean anything, as where it is judged."""


class CrossSections:
    """The sessions of each model's validation windows, and the order of what came of them.

    Args:
        realised: ``[M, N]``, returns that can be compared between symbols.
        session: int64 ``[M, N]``.
        counted: bool ``[M, N]``, False for padding.

    Tensors of any device.
    """

    def __init__(
        self, realised: torch.Tensor, session: torch.Tensor, counted: torch.Tensor
    ) -> None:
        days, self._day = torch.unique(session.cpu(), return_inverse=True)
        self._day[~counted.cpu()] = len(days)  # a day of its own, which is never looked at
        self._days = len(days) + 1
        self._size = self._sums(torch.ones(session.shape, dtype=torch.float64))
        self._realised = self._mid_ranks(realised)
        self._spread = self._sums(self._realised**2)
        self._judged = (self._size >= MIN_CROSS_SECTION) & (self._spread > 0)
        self._judged[:, -1] = False

    def rank_ic(self, forecast: torch.Tensor) -> torch.Tensor:
        """Mean over sessions of the rank correlation: float64 ``[M]``, NaN where none is defined.

        Args:
            forecast: ``[M, N]``, to be compared between symbols as it stands.
        """
        said = self._mid_ranks(forecast)
        spread = self._sums(said**2)
        judged = self._judged & (spread > 0)
        together = self._sums(said * self._realised)
        each = together / (spread * self._spread).clamp(min=1e-12).sqrt()
        return (each * judged).sum(1) / judged.sum(1)

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sums by session, ``[M, D]``, the padding's last."""
        return values.new_zeros(len(values), self._days).scatter_add_(1, self._day, values)

    def _mid_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """Ranks inside each session, less their mean; equal values share the mean of theirs."""
        values = values.cpu().double()
        # Sorting is stable, so equal values rank in the order of the rows: forwards and backwards
        # together they come to their mean.
        ranks = self._ranks(values, self._day)
        ranks += self._ranks(values.flip(1), self._day.flip(1)).flip(1)
        return (ranks - (self._size - 1).gather(1, self._day)) / 2

    def _ranks(self, values: torch.Tensor, day: torch.Tensor) -> torch.Tensor:
        by_value = values.argsort(stable=True, dim=1)
        order = by_value.gather(1, day.gather(1, by_value).argsort(stable=True, dim=1))
        begins = self._size.cumsum(1) - self._size
        place = torch.arange(values.shape[1], device=values.device, dtype=values.dtype)
        inside = place - begins.gather(1, day.gather(1, order))
        return torch.zeros_like(values).scatter_(1, order, inside)
