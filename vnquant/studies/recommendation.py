"""What a study recommends, by a rule: the first variant stays, unless another is surely better.

Or, where the study says how much worse is as good as equal, unless another is surely no worse than
that and clearly cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vnquant.studies.definition import LOWER_IS_BETTER, Cheaper, Metric, Study

Row = Mapping[str, Any]
SIGNIFICANT = 0.05
"""Adjusted for the number of trials; what is less certain does not change a default."""
CLEARLY_CHEAPER = 0.8
"""Of the first variant's cost; a smaller saving is within what a shared machine's clock tells."""
WORDS = {"rank_ic": "RankIC", "accuracy": "accuracy", "brier": "Brier score",
         "mse_sum": "squared error of the path"}  # fmt: skip
COSTS = {"hours": "core-hours of training", "forecast_seconds": "seconds to forecast"}


def recommend(study: Study, rows: Sequence[Row], seed_noise: float | None = None) -> str:
    """The study's recommendation in a sentence.

    Of several that are better, the one with the largest gain; of several that are cheaper, the one
    that costs least. Of one that is worse for certain nothing is said but in the table.

    Args:
        rows: of the first variant and of those compared with it (``against_first``).
        seed_noise: the metric's difference between seeds, which a gain must exceed; None: unknown.
    """
    first, *others = rows
    if "failed" in first:
        return f"Nothing to compare with: {first['name']} failed ({first['failed']})."
    known = [row for row in others if row.get("against_first", {}).get("difference") is not None]
    if not known:
        return f"Keep {first['name']}: there is nothing to compare it with."
    metric, word = study.metric, WORDS[study.metric]
    sure = [row for row in known if _gain(row, metric) > 0 and _sure(row)]
    best = max(sure or known, key=lambda row: _gain(row, metric))
    gain, p = _gain(best, metric), best["against_first"]["adjusted_p"]
    certainty = "too few dates for a p-value" if p is None else f"adjusted p {p:.3f}"
    better = f"its {word} is better by {gain:.4f} ({certainty}, {len(rows)} trials)"
    if sure and (seed_noise is None or gain > seed_noise):
        return f"Change to {best['name']}: {better}."
    if study.cheaper and (saving := _saving(study.cheaper, metric, first, known)):
        return saving
    if gain <= 0:
        return f"Keep {first['name']}: no other has a better {word}."
    why = (
        f"but another seed alone changes it by {seed_noise:.4f}"
        if sure
        else "which cannot be told from chance"
    )
    return f"Keep {first['name']}: {best['name']} is the best, {better}, {why}."


def _saving(rule: Cheaper, metric: Metric, first: Row, known: Sequence[Row]) -> str | None:
    """The sentence for the variant that costs least of those that are cheap and good enough."""
    cost = rule.cost
    if not first.get(cost):
        return None
    enough = [
        row
        for row in known
        if row.get(cost) is not None
        and row[cost] <= CLEARLY_CHEAPER * first[cost]
        and (worst := _worst(row, metric)) is not None
        and worst > -rule.margin
    ]
    if not enough:
        return None
    chosen = min(enough, key=lambda row: row[cost])
    return (
        f"Change to {chosen['name']}: cheaper ({chosen[cost]:.2f} {COSTS[cost]}, not "
        f"{first[cost]:.2f}) and not worse by more than {rule.margin:g} in {WORDS[metric]} (lower "
        f"end of the interval {_worst(chosen, metric):+.4f})."
    )


def _sign(metric: Metric) -> float:
    return -1.0 if metric in LOWER_IS_BETTER else 1.0


def _gain(row: Row, metric: Metric) -> float:
    """How much better than the first variant, whichever way the metric goes."""
    return float(_sign(metric) * row["against_first"]["difference"])


def _worst(row: Row, metric: Metric) -> float | None:
    """The lower end of the interval of `_gain`; None for too few dates."""
    interval = row["against_first"]["interval"]
    return None if interval is None else float(min(_sign(metric) * end for end in interval))


def _sure(row: Row) -> bool:
    p = row["against_first"]["adjusted_p"]
    return p is not None and p < SIGNIFICANT
