"""What may be believed of a forecast table: tests per symbol, per exchange and pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.evaluation.correlation import correlation_series
from vnquant.evaluation.direction import robust_direction
from vnquant.evaluation.metrics import FLAT, horizon_of
from vnquant.evaluation.multiplicity import benjamini_hochberg
from vnquant.spec import GateSpec

SHARED = (
    *("n", "dates", "accuracy", "accuracy_interval", "ic_kind"),
    *("ic", "ic_se", "rank_ic", "rank_ic_se", "ece"),
)
"""Figures that `vnquant.evaluation.metrics.summarise` has already computed."""


def statistics(
    table: pd.DataFrame, judged: Mapping[str, Any], exchanges: Mapping[str, str]
) -> dict[str, Any]:
    """``{"pooled": {...}, "by_exchange": {...}, "by_symbol": {...}}``, ready for JSON.

    Each part has the figures `SHARED` and ``direction``: the Pesaran-Timmermann test in the form
    that allows for overlapping windows and shares that move together
    (`vnquant.evaluation.direction.robust_direction`: n, accuracy, expected, statistic, one-sided
    p_value), or None. A symbol has ``adjusted_p_value`` as well: Benjamini and Hochberg's over all
    symbols of the table, None where its test is undefined.

    Args:
        table: as for `vnquant.evaluation.metrics.summarise`; judged: what that returned for it.
        exchanges: exchange of every symbol of the table.
    """
    horizon = horizon_of(table)
    said = (table["p_up"] > 0.5).to_numpy(bool)
    up = rises(table)
    day = pd.factorize(table["date"], sort=True)[0].astype(np.int64)
    symbol = pd.factorize(table["symbol"], sort=True)[0].astype(np.int64)
    names = table["symbol"].to_numpy(str)
    venue = np.array([exchanges[s] for s in names])

    def part(inside: Any, figures: Mapping[str, Any]) -> dict[str, Any]:
        test = robust_direction(
            said[inside], up[inside], day[inside], horizon, symbol=symbol[inside]
        )
        return {k: figures[k] for k in SHARED} | {"direction": asdict(test) if test else None}

    by_symbol = {s: part(names == s, v) for s, v in judged["by_symbol"].items()}
    found = [(v["direction"] or {}).get("p_value") for v in by_symbol.values()]
    adjusted = benjamini_hochberg(np.array([np.nan if p is None else p for p in found]))
    for value, p in zip(by_symbol.values(), adjusted, strict=True):
        value["adjusted_p_value"] = float(p) if np.isfinite(p) else None
    return {
        "pooled": part(np.ones(len(table), dtype=bool), judged["pooled"]),
        "by_exchange": {e: part(venue == e, v) for e, v in judged["by_exchange"].items()},
        "by_symbol": by_symbol,
    }


def verdicts(
    asked: Sequence[str],
    figures: Mapping[str, Mapping[str, Any]],
    tests: Mapping[str, Mapping[str, Any]],
    untested: Mapping[str, str],
    exchanges: Mapping[str, str],
    gate: GateSpec,
    level: float,
) -> list[dict[str, Any]]:
    """One entry a symbol asked for, in order: symbol, exchange (None: unknown), passed, reason.

    A symbol passes when it clears the gate's accuracy and RMSE and its directions are right more
    often than chance at ``1 - level`` after adjustment for all symbols.

    Args:
        figures: ``by_symbol`` of `vnquant.evaluation.metrics.summarise`. tests: ``by_symbol`` of
            `statistics`. untested: why a symbol was not judged.
    """
    listed = []
    for name in asked:
        if name in figures:
            missing = _missing(figures[name], tests[name], gate, 1 - level)
            reason = "Refused: " + ", ".join(missing) if missing else "Cleared every bar"
        else:
            missing = [untested.get(name, "no reason was recorded")]
            reason = f"Not judged: {missing[0]}"
        listed.append(
            {
                "symbol": name,
                "exchange": exchanges.get(name),
                "passed": not missing,
                "reason": reason + ".",
            }
        )
    return listed


def rises(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether the sum of the realised returns rose, ``[N]``."""
    return np.asarray(_sums(table, "y") > FLAT)


def ic_by_date(table: pd.DataFrame) -> pd.DataFrame:
    """date, ic, rank_ic: correlation over the symbols of a date; NaN where there are too few."""
    day = table["date"].to_numpy()
    series = {
        name: correlation_series(_sums(table, "mu"), _sums(table, "y"), day, ranked=ranked)
        for name, ranked in (("ic", False), ("rank_ic", True))
    }
    return pd.DataFrame({"date": np.unique(day), **series})


def _missing(
    figures: Mapping[str, Any], test: Mapping[str, Any], gate: GateSpec, most: float
) -> list[str]:
    accuracy, rmse, p = figures["accuracy"], figures["rmse"], test["adjusted_p_value"]
    said = []
    if accuracy is None or not accuracy > gate.min_accuracy:
        said.append(f"accuracy {_shown(accuracy)} is not above {gate.min_accuracy:.4f}")
    if rmse is None or not rmse < gate.max_rmse:
        said.append(f"RMSE {_shown(rmse)} is not below {gate.max_rmse:.4f}")
    if p is None or not p < most:
        said.append(f"adjusted p-value {_shown(p)} of its directions is not below {most:.4f}")
    return said


def _shown(value: float | None) -> str:
    return "(undefined)" if value is None else f"{value:.4f}"


def _sums(table: pd.DataFrame, name: str) -> Any:
    steps = range(1, horizon_of(table) + 1)
    return table[[f"{name}_{h}" for h in steps]].to_numpy(np.float64).sum(axis=1)
