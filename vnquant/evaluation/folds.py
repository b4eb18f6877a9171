"""Results of a walk-forward: the verdict on every fold and on all of them pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vnquant.evaluation import verdict
from vnquant.evaluation.leaks import Leak
from vnquant.evaluation.recalibration import uncalibrated
from vnquant.spec import RunSpec

Tables = Mapping[str, pd.DataFrame]


def build(
    forecasts: pd.DataFrame,
    rivals: Tables,
    spec: RunSpec,
    exchanges: Mapping[str, str],
    caveats: Sequence[Leak] = (),
) -> dict[str, Any]:
    """Judge fold by fold, then all windows together; everything in the result is JSON-able.

    Args:
        forecasts: a forecast table with the columns ``fold`` and ``p_model``; rivals: the same
            of each baseline, without the latter.
        caveats: what is known to flatter every row alike.

    Returns:
        ``pooled`` (a verdict, see `vnquant.evaluation.verdict.build`), ``uncalibrated`` (``ece``
        and ``brier`` of ``p_model``), ``folds`` (fold number as text to ``first`` and ``last``
        date judged and ``verdict``), ``caveats``.
    """

    def judged(fold: int | None) -> dict[str, Any]:
        others = {name: _of(table, fold) for name, table in rivals.items()}
        return verdict.build(_of(forecasts, fold), others, spec, exchanges)

    folds = {}
    for fold, part in forecasts.groupby("fold", sort=True):
        dates = part["date"]
        span = {"first": f"{dates.min():%Y-%m-%d}", "last": f"{dates.max():%Y-%m-%d}"}
        folds[str(fold)] = {**span, "verdict": judged(int(str(fold)))}
    return {
        "pooled": judged(None),
        "uncalibrated": uncalibrated(forecasts),
        "folds": folds,
        "caveats": [f"{leak.where}: {leak.what}" for leak in caveats],
    }


def _of(table: pd.DataFrame, fold: int | None) -> pd.DataFrame:
    chosen = table if fold is None else table[table["fold"] == fold]
    return chosen.drop(columns="fold").reset_index(drop=True)


def to_markdown(result: Mapping[str, Any]) -> str:
    """Caveats, a row for each fold and forecaster, then the pooled verdict's page."""
    lines = ["# Walk-forward", "", *(f"Beware: {c}.\n" for c in result["caveats"])]
    lines += [
        "| fold | judged | | n | accuracy | interval | RankIC | RankIC s.e. | ECE |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for number, fold in result["folds"].items():
        for row in fold["verdict"]["comparison"]:
            cells = [number, f"{fold['first']} to {fold['last']}", row["name"], str(row["n"])]
            interval = row["accuracy_interval"]
            cells += [
                _number(row["accuracy"], "{:.2%}"),
                "-" if interval is None else f"{interval[0]:.2%} to {interval[1]:.2%}",
                _number(row["rank_ic"], "{:+.4f}"),
                _number(row["rank_ic_se"], "{:.4f}"),
                _number(row["ece"], "{:.4f}"),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    own = verdict.as_the_members_say(result["uncalibrated"], "each fold's validation part")
    pooled = verdict.to_markdown(result["pooled"]).replace("# Verdict", "# All folds pooled", 1)
    return "\n\n".join(["\n".join(lines), *own, pooled])


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
