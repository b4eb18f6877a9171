"""What a forecast table was worth: errors, direction, correlation and calibration.

A rise means that the realised H-session sum of log returns is above 0; a flat one is not a rise.
Panels hold float32, where an unchanged price sums to some 1e-9: within `FLAT` of 0 counts as flat.
Sums are over the table's H horizons. Undefined values are None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.errors import DataError
from vnquant.evaluation.calibration import (
    brier_score,
    coverage_80,
    expected_calibration_error,
    reliability,
)
from vnquant.evaluation.correlation import (
    MIN_CROSS_SECTION,
    correlation_series,
    standardised,
)
from vnquant.evaluation.intervals import (
    block_length,
    newey_west_se,
    percentile_interval,
    resampled_sums,
    two_sided_p,
)
from vnquant.evaluation.overlap import overlap_lag
from vnquant.spec import EvaluationSpec

Floats = npt.NDArray[np.float64]

FLAT = 1e-6
"""Log returns; the smallest tick on a dear share is fifty times as large."""


@dataclass(frozen=True)
class _Rows:
    """The table as arrays; ``mu``, ``sigma`` and ``y`` are ``[N, H]`` daily log returns."""

    symbol: npt.NDArray[np.int64]
    date: npt.NDArray[np.int64]
    mu: Floats
    sigma: Floats
    y: Floats
    p_up: Floats

    def take(self, mask: npt.NDArray[np.bool_]) -> _Rows:
        return _Rows(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))


def reliability_table(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Stated and observed frequency of a rise; see `vnquant.evaluation.calibration.reliability`.

    Raises:
        DataError: a column is missing, or a value is not finite.
    """
    rows, _ = _rows(table)
    return reliability(rows.p_up, rows.y.sum(axis=1) > FLAT)


def horizon_of(table: pd.DataFrame) -> int:
    """How many sessions ahead the table's forecasts reach."""
    return sum(str(c).startswith("mu_") for c in table.columns)


def point_metrics(table: pd.DataFrame) -> dict[str, Any]:
    """Every pooled figure that needs no bootstrap; see `summarise` for the fields.

    Raises:
        DataError: a column is missing, or a value is not finite.
    """
    return _point(_rows(table)[0])


def summarise(
    table: pd.DataFrame,
    spec: EvaluationSpec,
    horizon: int,
    seed: int,
    exchanges: Mapping[str, str],
) -> dict[str, Any]:
    """Judge a forecast table: ``{"pooled": {...}, "by_symbol": {...}, "by_exchange": {...}}``.

    Each part has: n and dates (counts); mae, rmse (daily log returns, all horizons together);
    mae_sum, rmse_sum (H-session sum); accuracy (share of rows where "p_up above 50 %" agrees with
    a rise), base_rate (share of rises: the accuracy of always saying up), majority (accuracy of
    always saying the commoner of the two), flat (share of sums that are 0); accuracy_interval
    [low, high] and edge_interval {chance, base_rate, majority: [low, high]} of accuracy minus
    50 %, minus the base rate and minus the majority class (moving-block bootstrap over dates,
    `vnquant.evaluation.intervals`), with edge_p_value {chance, base_rate, majority} (two-sided);
    distinguishable_from_chance and distinguishable_from_base_rate (that interval leaves 0 out, on
    either side);
    ic, rank_ic with ic_se, rank_ic_se (Newey-West with the lag of
    `vnquant.evaluation.overlap.overlap_lag`) and ic_kind ("cross_sectional": a correlation per
    date, averaged; "time_series": one per symbol, averaged, where no date has five symbols); ece,
    brier, coverage_80.

    Args:
        table: symbol, date, mu_1..mu_H, sigma_1..sigma_H, p_up, y_1..y_H; one row per window.
        horizon: H; the windows of neighbouring dates overlap by H - 1 sessions.
        seed: of the bootstrap.
        exchanges: exchange of every symbol in the table.

    Raises:
        DataError: a column is missing, a value is not finite, or H is another one.
    """
    rows, names = _rows_of(table, horizon)
    missing = [name for name in names if name not in exchanges]
    if missing:
        raise DataError(
            f"no exchange known for {', '.join(missing[:5])}",
            where="forecast table",
            fix="give the exchange of every symbol",
        )

    def judge(part: _Rows) -> dict[str, Any]:
        return _judged(part, spec, horizon, seed)

    venue = np.array([exchanges[name] for name in names], dtype=object)
    return {
        "pooled": judge(rows),
        "by_symbol": {s: judge(rows.take(rows.symbol == i)) for i, s in enumerate(names)},
        "by_exchange": {
            e: judge(rows.take(venue[rows.symbol] == e)) for e in sorted(set(venue.tolist()))
        },
    }


def summarise_pooled(
    table: pd.DataFrame, spec: EvaluationSpec, horizon: int, seed: int
) -> dict[str, Any]:
    """The part ``pooled`` of `summarise`, at a small part of its cost where symbols are many.

    Raises:
        DataError: a column is missing, a value is not finite, or H is another one.
    """
    return _judged(_rows_of(table, horizon)[0], spec, horizon, seed)


def _rows_of(table: pd.DataFrame, horizon: int) -> tuple[_Rows, list[str]]:
    if horizon_of(table) != horizon:
        raise DataError(
            f"holds forecasts for {horizon_of(table)} sessions, not {horizon}",
            where="forecast table",
            fix="evaluate with the spec that the models were trained with",
        )
    return _rows(table)


def _judged(rows: _Rows, spec: EvaluationSpec, horizon: int, seed: int) -> dict[str, Any]:
    return _point(rows) | _direction_intervals(rows, spec, horizon, seed)


def _rows(table: pd.DataFrame) -> tuple[_Rows, list[str]]:
    h = range(1, horizon_of(table) + 1)
    needed = ["symbol", "date", "p_up", *(f"{c}_{i}" for i in h for c in ("mu", "sigma", "y"))]
    missing = [c for c in needed if c not in table.columns]
    if missing or not h:
        raise DataError(
            f"lacks {', '.join(missing) or 'mu_1'}",
            where="forecast table",
            fix="run the stage evaluate again",
        )

    def block(name: str) -> Floats:
        values = table[[f"{name}_{i}" for i in h]].to_numpy(np.float64)
        return np.ascontiguousarray(values)  # one memory order: sums round alike in every part

    codes, names = pd.factorize(table["symbol"], sort=True)
    dates, _ = pd.factorize(table["date"], sort=True)
    p_up = table["p_up"].to_numpy(np.float64)
    rows = _Rows(codes, dates, block("mu"), block("sigma"), block("y"), p_up)
    values = np.column_stack([rows.mu, rows.sigma, rows.y, rows.p_up])
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} rows are not finite, the first of {names[codes[bad][0]]}",
            where="forecast table",
            fix="leave out symbols whose training diverged",
        )
    return rows, [str(name) for name in names]


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _point(rows: _Rows) -> dict[str, Any]:
    error = rows.mu - rows.y
    forecast, realised = rows.mu.sum(axis=1), rows.y.sum(axis=1)
    up, said = realised > FLAT, rows.p_up > 0.5
    base = _mean(up)
    return {
        "n": len(up),
        "dates": len(np.unique(rows.date)),
        "mae": _mean(np.abs(error)),
        "rmse": _root(_mean(error**2)),
        "mae_sum": _mean(np.abs(forecast - realised)),
        "rmse_sum": _root(_mean((forecast - realised) ** 2)),
        "accuracy": _mean(said == up),
        "base_rate": base,
        "majority": None if base is None else max(base, 1 - base),
        "flat": _mean(np.abs(realised) <= FLAT),
        **_information(rows, forecast, realised),
        "ece": expected_calibration_error(rows.p_up, up),
        "brier": brier_score(rows.p_up, up),
        "coverage_80": coverage_80(forecast, np.sqrt((rows.sigma**2).sum(axis=1)), realised),
    }


def _direction_intervals(
    rows: _Rows, spec: EvaluationSpec, horizon: int, seed: int
) -> dict[str, Any]:
    up = rows.y.sum(axis=1) > FLAT
    hit = (rows.p_up > 0.5) == up
    common = up if 2 * up.sum() >= len(up) else ~up
    _, day = np.unique(rows.date, return_inverse=True)
    per_date: Floats = np.column_stack(
        [np.bincount(day, weights=w) for w in (np.ones(len(up)), hit, up, common)]
    ).astype(np.float64)
    block = block_length(len(per_date), horizon)
    totals = resampled_sums(per_date, block, spec.bootstrap_samples, seed)
    if totals is None:
        undefined = dict.fromkeys(("chance", "base_rate", "majority"))
        return {
            "accuracy_interval": None,
            "edge_interval": undefined,
            "edge_p_value": undefined.copy(),
            "distinguishable_from_chance": False,
            "distinguishable_from_base_rate": False,
        }
    accuracy = totals[:, 1] / totals[:, 0]
    # The majority class is that of the whole sample, judged on the same resampled rows.
    edges = {
        "chance": accuracy - 0.5,
        "base_rate": accuracy - totals[:, 2] / totals[:, 0],
        "majority": accuracy - totals[:, 3] / totals[:, 0],
    }
    intervals = {k: percentile_interval(e, spec.confidence_level) for k, e in edges.items()}
    return {
        "accuracy_interval": percentile_interval(accuracy, spec.confidence_level),
        "edge_interval": intervals,
        "edge_p_value": {k: two_sided_p(e) for k, e in edges.items()},
        "distinguishable_from_chance": _leaves_out_zero(intervals["chance"]),
        "distinguishable_from_base_rate": _leaves_out_zero(intervals["base_rate"]),
    }


def _leaves_out_zero(interval: list[float]) -> bool:
    return bool(interval[0] > 0 or interval[1] < 0)


def _information(rows: _Rows, forecast: Floats, realised: Floats) -> dict[str, Any]:
    horizon = rows.mu.shape[1]
    cross_sectional = bool((np.bincount(rows.date) >= MIN_CROSS_SECTION).any())
    result: dict[str, Any] = {"ic_kind": "cross_sectional" if cross_sectional else "time_series"}
    for name, ranked in (("ic", False), ("rank_ic", True)):
        if cross_sectional:
            series = correlation_series(forecast, realised, rows.date, ranked=ranked)
            series = series[np.isfinite(series)]
            value, se = _mean(series), newey_west_se(series, overlap_lag(len(series), horizon))
        else:
            z = standardised((forecast, realised), rows.symbol, ranked)
            value, se = _time_series(z[0], z[1], rows.symbol, rows.date, horizon)
        result |= {name: value, f"{name}_se": se}
    return result


def _time_series(
    f: Floats, y: Floats, symbol: npt.NDArray[np.int64], date: npt.NDArray[np.int64], horizon: int
) -> tuple[float | None, float | None]:
    defined = np.isfinite(f) & np.isfinite(y)
    f, y = f[defined], y[defined]
    if not len(f):
        return None, None
    _, s = np.unique(symbol[defined], return_inverse=True)
    _, d = np.unique(date[defined], return_inverse=True)
    count = np.bincount(s)
    each = np.bincount(s, weights=f * y) / count
    # How far each row pulls the mean correlation (its influence); the rows of a date together.
    influence = (f * y - each[s] * (f**2 + y**2) / 2) / (count[s] * len(count))
    pull = np.bincount(d, weights=influence) * (d.max() + 1)
    return float(each.mean()), newey_west_se(pull, overlap_lag(len(pull), horizon))
