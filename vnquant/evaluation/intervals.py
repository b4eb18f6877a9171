"""Confidence intervals that respect overlapping windows and shares that move together.

Circular moving-block bootstrap (Politis and Romano 1992) over dates: all symbols of a date are
drawn together, and neighbouring dates in blocks, because an H-session target shares H - 1 sessions
with the next one and shares of one market rise and fall on the same days.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_BLOCKS = 3
"""Fewer blocks than this say nothing about variation: the interval is then undefined."""

_CHUNK = 2048


def block_length(n_dates: int, horizon: int) -> int:
    """``max(2 H, ceil(n_dates ** (1/3)))`` sessions.

    Twice the horizon covers the overlap of targets and leaves room for forecasts that persist; the
    cube root is the rate at which the best block length grows with the sample.
    """
    # Rounded first: 27 ** (1/3) is 3.0000000000000004 on some machines.
    return max(2 * horizon, math.ceil(round(math.pow(n_dates, 1 / 3), 9)))


def resampled_sums(per_date: Floats, block: int, samples: int, seed: int) -> Floats | None:
    """Bootstrap totals ``[samples, K]`` of per-date sums ``[D, K]`` in time order.

    Every sample has exactly D dates: whole blocks, the last one cut short. None where D is less
    than `MIN_BLOCKS` blocks. The same seed gives the same dates, so two forecasters judged on the
    same dates are compared on the same samples.
    """
    n, k = per_date.shape
    if n < MIN_BLOCKS * block:
        return None
    blocks = math.ceil(n / block)
    last = n - (blocks - 1) * block
    wrapped = np.concatenate([np.zeros((1, k)), per_date, per_date[:block]]).cumsum(axis=0)
    whole = wrapped[block : block + n] - wrapped[:n]
    cut = wrapped[last : last + n] - wrapped[:n]
    generator = np.random.Generator(np.random.Philox(seed))
    totals = np.empty((samples, k))
    for begin in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - begin)
        starts = generator.integers(0, n, size=(size, blocks))
        totals[begin : begin + size] = whole[starts[:, :-1]].sum(axis=1) + cut[starts[:, -1]]
    return totals


def percentile_interval(values: Floats, level: float) -> list[float]:
    """The central ``level`` share of bootstrap values, as [low, high]."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def two_sided_p(values: Floats) -> float:
    """Bootstrap p-value of "the true value is 0": twice the smaller tail on either side of 0.

    Counted with the observed sample itself, so it is never 0: at least ``2 / (samples + 1)``.
    """
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (len(values) + 1))


def newey_west_se(series: Floats, lag: int) -> float | None:
    """Standard error of a series' mean, autocorrelated up to ``lag`` (Bartlett weights, 1987).

    None for fewer than ``lag + 2`` values.
    """
    n = len(series)
    if n < lag + 2:
        return None
    d = series - series.mean()
    variance = float(d @ d) / n
    for j in range(1, lag + 1):
        variance += 2 * (1 - j / (lag + 1)) * float(d[j:] @ d[:-j]) / n
    return math.sqrt(max(variance, 0.0) / n)
