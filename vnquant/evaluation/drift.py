"""Whether the world is still the one that a set was judged in: outcomes by week, and inputs.

An alert says that chance is a poor explanation, not that the models are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.evaluation.statistics import ic_by_date, rises

Floats = npt.NDArray[np.float64]

BINS = 10
FLOOR = 1e-4
"""Share that an empty bin counts as; a logarithm needs one."""
PSI_ALERT = 0.25
"""The usual rule of thumb (Siddiqi 2006): under 0.10 no shift, over 0.25 a large one."""


def stability_index(reference: Floats, recent: Floats) -> Floats:
    """Population stability index of each feature: ``sum (q - p) ln(q / p)`` over `BINS` bins.

    Args:
        reference: ``[N, F]``; the bins are its quantiles. Rows that are not finite do not count.
        recent: ``[K, F]``.

    Returns:
        ``[F]``; NaN where either has no finite value.
    """
    out = np.full(reference.shape[1], np.nan)
    for f in range(reference.shape[1]):
        old, new = (part[np.isfinite(part)] for part in (reference[:, f], recent[:, f]))
        if not len(old) or not len(new):
            continue
        # A value that is common enough to be several quantiles makes one edge, not several.
        edges = np.unique(np.quantile(old, np.linspace(0, 1, BINS + 1)[1:-1]))
        p, q = (_shares(part, edges) for part in (old, new))
        out[f] = float(((q - p) * np.log(q / p)).sum())
    return out


def _shares(values: Floats, edges: Floats) -> Floats:
    # A bin between two edges, and one on each: a constant that changes has left its edge.
    place = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, "right")
    counts = np.bincount(place, minlength=2 * len(edges) + 1)
    return np.maximum(counts / len(values), FLOOR)


def by_week(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy and mean RankIC of a forecast table by calendar week of the forecast's date.

    Returns:
        ``week`` (its Monday), ``n`` windows, ``dates``, ``accuracy``, ``rank_ic`` (None where no
        date has enough symbols), in order of time.
    """
    right = (table["p_up"].to_numpy() > 0.5) == rises(table)
    week, daily = _monday(table["date"]), ic_by_date(table)
    rank_ic, week_of_day = daily["rank_ic"].to_numpy(), _monday(daily["date"])
    found = []
    for monday in np.unique(week):
        rows, known = week == monday, rank_ic[week_of_day == monday]
        known = known[np.isfinite(known)]
        found.append(
            {
                "week": str(monday),
                "n": int(rows.sum()),
                "dates": int((week_of_day == monday).sum()),
                "accuracy": float(right[rows].mean()),
                "rank_ic": float(known.mean()) if len(known) else None,
            }
        )
    return found


def _monday(dates: pd.Series) -> npt.NDArray[np.datetime64]:
    day = pd.to_datetime(dates)
    return (day - pd.to_timedelta(day.dt.day_of_week, unit="D")).to_numpy("datetime64[D]")


def alerts(
    realised: Mapping[str, Any],
    expected: Mapping[str, Any],
    features: Sequence[str],
    shifts: Floats,
) -> list[str]:
    """What a person should look at, in words; empty: nothing.

    Args:
        realised: pooled figures since deployment, of `vnquant.evaluation.metrics.summarise`.
        expected: the same of the verdict on the deployed set.
        features: names ``[F]`` of ``shifts``, their stability indices.
    """
    said = []
    now, band = realised["accuracy_interval"], expected["accuracy_interval"]
    if now is not None and band is not None and now[1] < band[0]:
        said.append(
            f"accuracy since deployment, {realised['accuracy']:.2%} "
            f"({now[0]:.2%} to {now[1]:.2%}), lies below what its judgement "
            f"allowed for ({band[0]:.2%} to {band[1]:.2%})"
        )
    moved = [(float(s), n) for s, n in zip(shifts, features, strict=True) if s > PSI_ALERT]
    if moved:
        worst = ", ".join(f"{n} {s:.2f}" for s, n in sorted(moved, reverse=True)[:5])
        said.append(
            f"{len(moved)} of {len(features)} features are distributed otherwise than in training "
            f"(stability index over {PSI_ALERT}): {worst}"
        )
    return said
