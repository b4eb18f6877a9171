"""The verdict: the model beside naive baselines, the gate, and what it means in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vnquant.evaluation.gates import decide
from vnquant.evaluation.metrics import reliability_table, summarise, summarise_pooled
from vnquant.evaluation.statistics import statistics, verdicts
from vnquant.spec import RunSpec

MODEL = "model"

_COLUMNS = {
    "accuracy": ("accuracy", "{:.2%}"),
    "base_rate": ("base rate", "{:.2%}"),
    "majority": ("majority", "{:.2%}"),
    "rmse": ("RMSE", "{:.5f}"),
    "mae": ("MAE", "{:.5f}"),
    "rmse_sum": ("RMSE sum", "{:.5f}"),
    "ic": ("IC", "{:+.4f}"),
    "rank_ic": ("RankIC", "{:+.4f}"),
    "rank_ic_se": ("RankIC s.e.", "{:.4f}"),
    "ece": ("ECE", "{:.4f}"),
    "brier": ("Brier", "{:.4f}"),
    "coverage_80": ("80 % coverage", "{:.1%}"),
}


def build(
    model_table: pd.DataFrame,
    baseline_tables: Mapping[str, pd.DataFrame],
    spec: RunSpec,
    exchanges: Mapping[str, str],
    untested: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Judge the model and its baselines; everything in the result is JSON-able.

    Returns:
        ``comparison`` (list of pooled figures with a ``name``, the model first), ``by_symbol`` and
        ``by_exchange`` of the model, its ``reliability`` table, ``gate``, ``sentence``,
        ``horizon``, ``confidence_level``, and of `vnquant.evaluation.statistics` the
        ``statistics`` of the model and ``verdicts``, one a symbol of the spec. ``untested`` says
        why those without forecasts have none.

    Raises:
        DataError: a table lacks a column or holds values that are not finite.
    """
    horizon = spec.windows.horizon
    how = (spec.evaluation, horizon, spec.training.seed)
    model = summarise(model_table, *how, exchanges)
    tests = statistics(model_table, model, exchanges)
    level = spec.evaluation.confidence_level
    comparison = [{"name": MODEL, **model["pooled"]}]
    comparison += [{"name": n, **summarise_pooled(t, *how)} for n, t in baseline_tables.items()]
    return {
        "comparison": comparison,
        "by_symbol": model["by_symbol"],
        "by_exchange": model["by_exchange"],
        "statistics": tests,
        "verdicts": verdicts(
            spec.symbols,
            model["by_symbol"],
            tests["by_symbol"],
            untested or {},
            exchanges,
            spec.gate,
            level,
        ),
        "reliability": reliability_table(model_table),
        "gate": decide(model["pooled"], spec.gate).to_dict(),
        "sentence": in_words(model["pooled"], level),
        "horizon": horizon,
        "confidence_level": level,
    }


def in_words(pooled: Mapping[str, Any], level: float) -> str:
    """Whether the accuracy can be told from a coin and from the naive base rate."""
    if pooled["accuracy"] is None:
        return "There was nothing to judge."
    head = f"Direction was right in {pooled['accuracy']:.2%} of {pooled['n']} windows"
    interval = pooled["accuracy_interval"]
    if interval is None:
        return (
            f"{head} on {pooled['dates']} dates, too few for a confidence interval: "
            "it cannot be told from chance."
        )
    edge = pooled["edge_interval"]
    naive = "up" if pooled["base_rate"] >= 0.5 else "down"
    return (
        f"{head} ({level:.0%} interval {interval[0]:.2%} to {interval[1]:.2%}): "
        f"{_side(edge['chance'])} 50 % chance, and {_side(edge['majority'])} "
        f"always saying {naive}, which was right in {pooled['majority']:.2%}."
    )


def _side(interval: list[float]) -> str:
    if interval[0] > 0:
        return "distinguishably better than"
    if interval[1] < 0:
        return "distinguishably worse than"
    return "not distinguishable from"


def to_markdown(verdict: Mapping[str, Any]) -> str:
    """The verdict as a page: sentence, gate, then the tables."""
    gate = verdict["gate"]
    rows = verdict["comparison"]
    by_exchange = [{"name": n, **v} for n, v in verdict["by_exchange"].items()]
    by_symbol = [{"name": n, **v} for n, v in verdict["by_symbol"].items()]
    level = f"{verdict['confidence_level']:.0%} interval"
    parts = [
        "# Verdict",
        str(verdict["sentence"]),
        f"Gate, forecasts alone: {gate['reason']}",
        f"## Model and baselines, next {verdict['horizon']} sessions",
        _markdown(rows, level),
        "RMSE and MAE are of one-session log returns; sums, accuracy, IC and calibration are of "
        f"the {verdict['horizon']}-session log return. The base rate is the accuracy of always "
        "saying up.",
        *as_the_members_say(verdict.get("uncalibrated"), "the validation part"),
        "## By exchange",
        _markdown(by_exchange, level),
        "## By symbol",
        _markdown(by_symbol, level),
        "## Verdict on each symbol",
        "\n".join(
            ["| symbol | exchange | passed | reason |", "|---|---|---|---|"]
            + [
                f"| {v['symbol']} | {v['exchange'] or '-'} | {'yes' if v['passed'] else 'no'} "
                f"| {v['reason']} |"
                for v in verdict["verdicts"]
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def as_the_members_say(own: Mapping[str, Any] | None, part: str) -> list[str]:
    """A paragraph about ``uncalibrated``, or none where it is not known or has no window.

    Verdicts of earlier versions have none, nor those inside a walk-forward, which says it once.
    """
    if own is None or own["ece"] is None:
        return []
    return [
        f"The model's probabilities are calibrated on {part}. As the members say them, their ECE "
        f"is {own['ece']:.4f} and their Brier score {own['brier']:.4f}."
    ]


def _interval(value: list[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.2%} to {value[1]:.2%}"


def _markdown(rows: list[dict[str, Any]], level: str) -> str:
    heads = ["", "n", "accuracy", level, *(t for k, (t, _) in _COLUMNS.items() if k != "accuracy")]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in rows:
        cells = [str(row["name"]), str(row["n"])]
        for key, (_, pattern) in _COLUMNS.items():
            cells.append("-" if row[key] is None else pattern.format(row[key]))
            if key == "accuracy":
                cells.append(_interval(row["accuracy_interval"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
