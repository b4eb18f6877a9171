"""What each part of the page says, as plain values for the template; None where it is absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vnquant.report import charts, formats
from vnquant.report.sources import Sources, Training
from vnquant.report.svg import Image

PER_SYMBOL = frozenset({"by_symbol", "symbols", "per_symbol"})
"""Parts of other stages' results that would fill the page; their own files have them."""


@dataclass(frozen=True)
class Cell:
    """A table's cell: what is read, and what is sorted by (None: last in either order)."""

    text: str
    key: float | str | None


@dataclass(frozen=True)
class SymbolDetail:
    """One symbol's plots."""

    symbol: str
    summary: str
    forecast: Image | None
    training: Image | None


def status(sources: Sources) -> str:
    """One word for the top of the page, which also picks its colour."""
    if sources.verdict is None:
        return "unjudged"
    return "passed" if sources.verdict["gate"]["passed"] else "refused"


def deployment(sources: Sources) -> str:
    found = sources.deployment
    if found is None:
        return "Whether it was deployed is not recorded: the stage deploy has not run."
    if found["deployed"]:
        forced = "" if found["gate"]["passed"] else " by force, although the gate refused it"
        return f"Deployed as set {found['set']}{forced}."
    return "Not deployed; what was deployed before stays."


SYMBOL_HEADS = (
    *("symbol", "verdict", "accuracy", "95 % interval", "always up", "RankIC", "RMSE", "ECE"),
    *("windows", "expected", "P(up)", "close", "exchange", "note"),
)


def symbol_heads(sources: Sources) -> tuple[str, ...]:
    level = (sources.verdict or {}).get("confidence_level", 0.95)
    return tuple(h.replace("95", f"{100 * level:.0f}") for h in SYMBOL_HEADS)


def symbol_rows(sources: Sources) -> list[list[Cell]]:
    """A row for every symbol of the spec and of every result: none is silently dropped."""
    verdict = sources.verdict or {}
    judged: Mapping[str, Any] = verdict.get("by_symbol") or {}
    passed = {str(v["symbol"]): v for v in verdict.get("verdicts") or []}
    forecasts = {str(f["symbol"]): f for f in sources.forecasts}
    names = {*sources.spec.symbols, *judged, *passed, *forecasts, *sources.failed}
    return [
        _row(
            name,
            judged.get(name) or {},
            passed.get(name) or {},
            forecasts.get(name) or {},
            sources.failed.get(name) or sources.unforecast.get(name),
        )
        for name in sorted(names)
    ]


def _row(
    name: str,
    judged: Mapping[str, Any],
    verdict: Mapping[str, Any],
    forecast: Mapping[str, Any],
    trouble: str | None,
) -> list[Cell]:
    exchange = str(verdict.get("exchange") or forecast.get("exchange") or formats.NOTHING)
    outcome = {True: "passed", False: "refused", None: formats.NOTHING}[verdict.get("passed")]
    span = judged.get("accuracy_interval")
    note = "; ".join(str(w) for w in (trouble, verdict.get("reason")) if w)

    def share(source: Mapping[str, Any], key: str, *, sign: bool = False) -> Cell:
        return Cell(formats.percent(source.get(key), sign=sign), source.get(key))

    return [
        Cell(name, name),
        Cell(outcome, outcome),
        share(judged, "accuracy"),
        Cell(formats.interval(span), span[0] if span else None),
        share(judged, "base_rate"),
        Cell(formats.fixed(judged.get("rank_ic"), 3, True), judged.get("rank_ic")),
        Cell(formats.fixed(judged.get("rmse")), judged.get("rmse")),
        Cell(formats.fixed(judged.get("ece"), 3), judged.get("ece")),
        Cell(formats.count(judged.get("n")), judged.get("n")),
        share(forecast, "expected_return", sign=True),
        share(forecast, "probability_up"),
        Cell(formats.fixed(forecast.get("close"), 2), forecast.get("close")),
        Cell(exchange, exchange),
        Cell(note, note),
    ]


def details(sources: Sources) -> list[SymbolDetail]:
    """Forecast fan and training curve of every symbol that has either."""
    forecasts = {str(f["symbol"]): f for f in sources.forecasts}
    models: dict[str, list[Training]] = {}
    for training in sources.trainings:
        if any(np.isfinite(validation) for _, validation in training.history):
            models.setdefault(training.symbol, []).append(training)
    past = {} if sources.closes is None else dict(list(sources.closes.groupby("symbol")))
    return [
        SymbolDetail(
            name,
            _summary(forecasts.get(name), sources.unforecast.get(name)),
            charts.fan(forecasts[name], past.get(name)) if name in forecasts else None,
            charts.training_curve(models[name]) if name in models else None,
        )
        for name in sorted({*forecasts, *models})
    ]


def _summary(forecast: Mapping[str, Any] | None, reason: str | None) -> str:
    if forecast is None:
        return f"no forecast: {reason}" if reason else "no forecast"
    expected = formats.percent(forecast["expected_return"], 2, True)
    return f"{expected} expected, P(up) {formats.percent(forecast['probability_up'])}"


def training(sources: Sources) -> Image | None:
    models = [m for m in sources.trainings if m.history]
    return charts.training_overview(models) if models else None


def pooled(sources: Sources) -> Image | None:
    """What the models learned from all symbols together, if there are any."""
    return charts.training_curve(sources.pooled) if sources.pooled else None


def reliability(sources: Sources) -> Image | None:
    verdict = sources.verdict or {}
    if not verdict.get("reliability"):
        return None
    return charts.reliability(verdict["reliability"], verdict["comparison"][0]["ece"])


def information(sources: Sources) -> tuple[Image | None, str]:
    """The correlation over time, or why there is none."""
    if sources.ic is None:
        return None, "The stage evaluate has not run."
    known = int(np.isfinite(sources.ic["rank_ic"].to_numpy(np.float64)).sum())
    if known == 0:
        return None, "No date has enough symbols (five) to correlate forecasts with outcomes."
    return charts.information(sources.ic), ""


def equity(sources: Sources) -> Image | None:
    usable = sources.equity is not None and len(sources.equity) > 0
    return charts.equity(sources.equity) if usable and sources.equity is not None else None


def figures(result: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Another stage's figures, named by their own keys."""
    kept = {k: v for k, v in (result or {}).items() if k not in PER_SYMBOL}
    return list(formats.flat(kept))


def quality_classes(sources: Sources) -> list[tuple[str, Mapping[str, Any]]]:
    """The defects that were found, the commonest first."""
    classes = (sources.quality or {}).get("classes") or {}
    found = [(n.replace("_", " "), c) for n, c in classes.items() if c["count"]]
    return sorted(found, key=lambda item: (-item[1]["count"], item[0]))


def quality_symbols(sources: Sources) -> Sequence[Mapping[str, Any]]:
    """Every symbol's bars, those with the smallest share kept first."""
    rows = list(((sources.quality or {}).get("symbols") or {}).values())
    return sorted(rows, key=lambda row: (row["kept_share"], str(row["symbol"])))


def command(sources: Sources) -> str:
    """What repeats the run, given the spec that the page holds."""
    prices = " --prices PRICES" if sources.spec.data.source == "folder" else ""
    return f"vnquant run all --spec run.json{prices}"


def stages(sources: Sources) -> list[tuple[str, Mapping[str, Any]]]:
    """What the manifest knows of every finished stage, in the order they finished."""
    found: Mapping[str, Mapping[str, Any]] = sources.manifest.get("stages") or {}
    return sorted(found.items(), key=lambda item: str(item[1]["finished"]))


def machine(sources: Sources) -> list[tuple[str, str]]:
    """Where the models were trained (else the last stage), and with which packages."""
    found = dict(stages(sources))
    if not found:
        return []
    stage = found.get("train") or list(found.values())[-1]
    known = {"platform": stage["platform"], "python": stage["python"], **stage["packages"]}
    return list(formats.flat(known))
