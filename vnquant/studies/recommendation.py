"""What a study recommends, by a rule: the first variant stays, unless another is surely better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vnquant.studies.definition import LOWER_IS_BETTER, Metric

Row = Mapping[str, Any]
SIGNIFICANT = 0.05
"""Adjusted for the number of trials; what is less certain does not change a default."""
WORDS = {"rank_ic": "RankIC", "accuracy": "accuracy", "brier": "Brier score",
         "mse_sum": "squared error of the path"}  # fmt: skip


def recommend(metric: Metric, rows: Sequence[Row], seed_noise: float | None = None) -> str:
    """The first variant stays, unless another is better and neither chance nor seed explains it.

    Of several that are, the one with the largest gain; of one that is worse for certain nothing is
    said but in the table.

    Args:
        rows: of the first variant and of those compared with it (``against_first``).
        seed_noise: the metric's difference between seeds, which a gain must exceed; None: unknown.
    """
    first, *others = rows
    if "failed" in first:
        return f"Nothing to compare with: {first['name']} failed ({first['failed']})."
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    gains = [
        (sign * row["against_first"]["difference"], row)
        for row in others
        if row.get("against_first", {}).get("difference") is not None
    ]
    if not gains:
        return f"Keep {first['name']}: there is nothing to compare it with."
    sure = [(gain, row) for gain, row in gains if gain > 0 and _sure(row)]
    gain, best = max(sure or gains, key=lambda pair: pair[0])
    if gain <= 0:
        return f"Keep {first['name']}: no other has a better {WORDS[metric]}."
    p = best["against_first"]["adjusted_p"]
    certainty = "too few dates for a p-value" if p is None else f"adjusted p {p:.3f}"
    certainty += f", {len(rows)} trials"
    if not sure:
        return (
            f"Keep {first['name']}: {best['name']} has the best {WORDS[metric]}, by {gain:.4f}, "
            f"which cannot be told from chance ({certainty})."
        )
    better = f"its {WORDS[metric]} is better by {gain:.4f} ({certainty})"
    if seed_noise is not None and gain <= seed_noise:
        return (
            f"Keep {first['name']}: {best['name']} is the best, {better}, but another seed alone "
            f"changes it by {seed_noise:.4f}."
        )
    return f"Change to {best['name']}: {better}."


def _sure(row: Row) -> bool:
    p = row["against_first"]["adjusted_p"]
    return p is not None and p < SIGNIFICANT
