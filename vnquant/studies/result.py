"""From the rows of a study's trials to a table, a comparison and a recommendation by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vnquant.evaluation.comparison import compare_forecasts
from vnquant.evaluation.multiplicity import benjamini_hochberg
from vnquant.studies.definition import LOWER_IS_BETTER, Metric, Study

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANT = 0.05
"""Adjusted for the number of trials; what is less certain does not change a default."""
KEYS = ["symbol", "date", "fold"]
WORDS = {"rank_ic": "RankIC", "accuracy": "accuracy", "brier": "Brier score",
         "mse_sum": "squared error of the path"}  # fmt: skip


def compared(metric: Metric, first: pd.DataFrame, other: pd.DataFrame, seed: int) -> dict[str, Any]:
    """``other`` minus ``first`` on the rows that both have, paired by date.

    Variants may have other first windows (a longer lookback), and only what both forecast is fair.

    Returns:
        ``difference``, ``interval``, ``p_value`` (None for too few dates), ``rows`` in common.
    """
    both = first[KEYS].merge(other[KEYS], on=KEYS)
    if both.empty:
        return {"difference": None, "interval": None, "p_value": None, "rows": 0}
    a, b = (both.merge(t, on=KEYS).drop(columns="fold") for t in (other, first))
    found = compare_forecasts(a, b, seed=seed)[metric]
    if found is None:
        return {"difference": None, "interval": None, "p_value": None, "rows": len(both)}
    return {"difference": found.difference, "interval": found.interval,
            "p_value": found.p_value, "rows": len(both)}  # fmt: skip


def build(
    study: Study, rows: Sequence[Mapping[str, Any]], tables: Mapping[str, pd.DataFrame], seed: int
) -> dict[str, Any]:
    """What a study has found; JSON-able.

    Args:
        rows: of every trial, the first variant's first; one with ``failed`` has nothing else.
        tables: forecasts of the trials that did not fail, by name.
    """
    first, *_ = rows
    out = [dict(row) for row in rows]
    if first["name"] in tables:
        against = tables[first["name"]]
        for row in out[1:]:
            if row["name"] in tables:
                row["against_first"] = compared(study.metric, against, tables[row["name"]], seed)
        p_values = np.array([_p_value(row) for row in out])
        for row, adjusted in zip(out, benjamini_hochberg(p_values), strict=True):
            if "against_first" in row:
                known = bool(np.isfinite(adjusted))
                row["against_first"]["adjusted_p"] = float(adjusted) if known else None
    return {
        "study": study.model_dump(mode="json"),
        "metric": study.metric,
        "trials": out,
        "recommendation": recommendation(study.metric, out),
    }


def _p_value(row: Mapping[str, Any]) -> float:
    value = row.get("against_first", {}).get("p_value")
    return np.nan if value is None else float(value)


def recommendation(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> str:
    """The first variant stays, unless another is better and the difference is not chance.

    Of several that are, the one with the largest difference; of one that is worse for certain
    nothing is said but in the table.
    """
    first, *others = rows
    if "failed" in first:
        return f"Nothing to compare with: {first['name']} failed ({first['failed']})."
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    known = [
        (sign * row["against_first"]["difference"], row)
        for row in others
        if row.get("against_first", {}).get("difference") is not None
    ]
    if not known:
        return f"Keep {first['name']}: there is nothing to compare it with."
    gain, best = max(known, key=lambda pair: pair[0])
    if gain <= 0:
        return f"Keep {first['name']}: no other has a better {WORDS[metric]}."
    sure = [(g, row) for g, row in known if g > 0 and _sure(row)]
    if sure:
        gain, best = max(sure, key=lambda pair: pair[0])
        return (
            f"Change to {best['name']}: its {WORDS[metric]} is better by {gain:.4f} "
            f"(adjusted p {best['against_first']['adjusted_p']:.3f}, {len(rows)} trials)."
        )
    p = best["against_first"]["adjusted_p"]
    said = "too few dates for a p-value" if p is None else f"adjusted p {p:.3f}"
    return (
        f"Keep {first['name']}: {best['name']} has the best {WORDS[metric]}, by {gain:.4f}, which "
        f"cannot be told from chance ({said}, {len(rows)} trials)."
    )


def _sure(row: Mapping[str, Any]) -> bool:
    p = row["against_first"]["adjusted_p"]
    return p is not None and p < SIGNIFICANT
