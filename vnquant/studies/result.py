"""From the rows of a study's trials to a table, a comparison and a recommendation by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vnquant.evaluation.comparison import compare_forecasts
from vnquant.evaluation.multiplicity import benjamini_hochberg
from vnquant.studies.definition import Metric, Study
from vnquant.studies.recommendation import recommend

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]
KEYS = ["symbol", "date", "fold"]


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
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    tables: Tables,
    seed: int,
    repeats: Sequence[Mapping[str, Any]] = (),
    proposed: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What a study has found; JSON-able.

    Args:
        rows: of every trial, the first variant's first; one with ``failed`` has nothing else.
        tables: forecasts of the trials that did not fail, by name.
        seed: of the bootstrap.
        repeats: rows of the first variant with other seeds. They are no trials: they say what the
            seed alone changes (``seed_noise``), and do not count for multiplicity.
        proposed: rows of a search's proposals, of which nothing but the loss is shown.
    """
    name = rows[0]["name"]

    def beside_first(row: Mapping[str, Any]) -> dict[str, Any]:
        if name not in tables or row["name"] not in tables:
            return dict(row)
        found = compared(study.metric, tables[name], tables[row["name"]], seed)
        return {**row, "against_first": found}

    trials = [dict(rows[0]), *map(beside_first, rows[1:])]
    _adjust(trials)
    again = [*map(beside_first, repeats)]
    noise = _largest(again)
    return {
        "study": study.model_dump(mode="json"),
        "metric": study.metric,
        "trials": trials,
        "repeats": again,
        "seed_noise": noise,
        "proposed": sorted(map(_proposal, proposed), key=_by_loss),
        "recommendation": recommend(study, trials, noise),
    }


def _proposal(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row.get(key) for key in ("name", "validation_loss", "run", "failed")}


def _by_loss(row: Mapping[str, Any]) -> float:
    loss = row["validation_loss"]
    return float("inf") if loss is None else float(loss)


def _adjust(trials: Sequence[dict[str, Any]]) -> None:
    """Add ``adjusted_p`` to every comparison: Benjamini and Hochberg's, over all of them."""
    found = [trial["against_first"] for trial in trials if "against_first" in trial]
    p_values = [np.nan if one["p_value"] is None else one["p_value"] for one in found]
    for one, p in zip(found, benjamini_hochberg(np.array(p_values)), strict=True):
        one["adjusted_p"] = float(p) if np.isfinite(p) else None


def _largest(repeats: Sequence[Mapping[str, Any]]) -> float | None:
    """The largest difference from the first variant, either way; None if none is defined."""
    found = (row.get("against_first", {}).get("difference") for row in repeats)
    return max((abs(difference) for difference in found if difference is not None), default=None)
