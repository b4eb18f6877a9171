"""Naive forecasters on the very rows that the model is judged on.

Each returns a forecast table of the same columns. Nothing here sees a target outside the training
windows, except to copy the realised returns ``y_1..y_H`` beside the forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import Ridge

from vnquant.features.catalogue import NAMES
from vnquant.features.panel import Panel
from vnquant.features.windows import Scaler, Windows
from vnquant.spec import RunSpec

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Ends = Mapping[str, Rows]

BARELY_UP = 0.501
"""What always_up says where rises were the minority in training: still up."""

MIN_SIGMA = 1e-6
_erf = np.vectorize(math.erf, otypes=[np.float64])


def always_up(
    panel: Panel,
    windows: list[Windows],
    scalers: Mapping[str, Scaler],
    test_ends: Ends,
    spec: RunSpec,
) -> pd.DataFrame:
    """Always says up: the training mean of daily returns and the training share of rises.

    The probability is kept above 50 % where rises were the minority.
    """
    parts = []
    for w in windows:
        ends = test_ends[w.symbol]
        y = _targets(panel, w.train)
        mean, sigma = _moments(y, scalers[w.symbol])
        share = float((y.sum(axis=1) > 0).mean()) if len(y) else 0.5
        p_up = np.full(len(ends), max(share, BARELY_UP))
        parts.append(table(panel, w.symbol, ends, np.full(len(ends), mean), sigma, p_up))
    return _joined(parts)


def momentum(
    panel: Panel,
    windows: list[Windows],
    scalers: Mapping[str, Scaler],
    test_ends: Ends,
    spec: RunSpec,
    *,
    column: int,
) -> pd.DataFrame:
    """The past five sessions' return goes on at the same pace.

    ``column`` is the feature ``return_5``: the unscaled log return of the past five sessions.
    """
    parts = []
    for w in windows:
        ends = test_ends[w.symbol]
        pace = panel.features[:, column].astype(np.float64) / 5.0
        y = _targets(panel, w.train)
        _, sigma = _moments(y - pace[w.train, None], scalers[w.symbol])
        deviation = sigma * math.sqrt(spec.windows.horizon)
        p_up = probability(pace[ends] * spec.windows.horizon, deviation)
        parts.append(table(panel, w.symbol, ends, pace[ends], sigma, p_up))
    return _joined(parts)


def ridge_per_symbol(
    panel: Panel,
    windows: list[Windows],
    scalers: Mapping[str, Scaler],
    test_ends: Ends,
    spec: RunSpec,
) -> pd.DataFrame:
    """One ridge regression a symbol: scaled features of the last session to the H-session sum."""
    parts = []
    for w in windows:
        x, total = _inputs(panel, w.train, scalers[w.symbol]), _targets(panel, w.train).sum(axis=1)
        model = _fitted(x, total, spec)
        parts.append(_ridge_table(panel, w, scalers[w.symbol], test_ends, spec, model, 1.0))
    return _joined(parts)


def ridge_pooled(
    panel: Panel,
    windows: list[Windows],
    scalers: Mapping[str, Scaler],
    test_ends: Ends,
    spec: RunSpec,
) -> pd.DataFrame:
    """One ridge regression for all symbols, on targets divided by each symbol's own scale."""
    x = [_inputs(panel, w.train, scalers[w.symbol]) for w in windows]
    y = [_targets(panel, w.train).sum(axis=1) / scalers[w.symbol].target_scale for w in windows]
    model = _fitted(np.concatenate(x), np.concatenate(y), spec) if windows else None
    parts = [
        _ridge_table(
            panel, w, scalers[w.symbol], test_ends, spec, model, scalers[w.symbol].target_scale
        )
        for w in windows
    ]
    return _joined(parts)


def compare(
    panel: Panel,
    windows: list[Windows],
    scalers: Mapping[str, Scaler],
    test_ends: Ends,
    spec: RunSpec,
) -> dict[str, pd.DataFrame]:
    """Every baseline's forecast table, by name."""
    given = (panel, windows, scalers, test_ends, spec)
    return {
        "always_up": always_up(*given),
        "momentum": momentum(*given, column=NAMES.index("return_5")),
        "ridge_per_symbol": ridge_per_symbol(*given),
        "ridge_pooled": ridge_pooled(*given),
    }


def _targets(panel: Panel, rows: Rows) -> Floats:
    return panel.targets[rows].astype(np.float64)


def _inputs(panel: Panel, rows: Rows, scaler: Scaler) -> Floats:
    return scaler.transform(panel.features[rows]).astype(np.float64)


def _moments(y: Floats, scaler: Scaler) -> tuple[float, float]:
    """Mean and deviation; without enough training windows, 0 and the scaler's deviation."""
    if y.size < 2:
        return 0.0, max(scaler.target_scale, MIN_SIGMA)
    return float(y.mean()), max(float(y.std()), MIN_SIGMA)


def _fitted(x: Floats, y: Floats, spec: RunSpec) -> Ridge | None:
    return Ridge(alpha=spec.evaluation.ridge_alpha).fit(x, y) if len(y) > 1 else None


def _predicted(model: Ridge | None, x: Floats) -> Floats:
    if model is None or not len(x):
        return np.zeros(len(x))
    return np.asarray(model.predict(x), dtype=np.float64)


def _ridge_table(
    panel: Panel,
    w: Windows,
    scaler: Scaler,
    test_ends: Ends,
    spec: RunSpec,
    model: Ridge | None,
    scale: float,
) -> pd.DataFrame:
    """Spread the forecast sum evenly; the deviation is that of the training residuals."""
    h, ends = spec.windows.horizon, test_ends[w.symbol]
    forecast = scale * _predicted(model, _inputs(panel, ends, scaler))
    known = scale * _predicted(model, _inputs(panel, w.train, scaler))
    residual = _targets(panel, w.train).sum(axis=1) - known
    fallback = scaler.target_scale * math.sqrt(h)
    deviation = max(float(residual.std()) if len(residual) > 1 else fallback, MIN_SIGMA)
    p_up = probability(forecast, deviation)
    return table(panel, w.symbol, ends, forecast / h, deviation / math.sqrt(h), p_up)


def probability(total: Floats, deviation: float) -> Floats:
    """P(sum > 0) of a Gaussian."""
    if not len(total):
        return np.zeros(0)
    return np.asarray(0.5 * (1.0 + _erf(total / (deviation * math.sqrt(2.0)))), dtype=np.float64)


def table(
    panel: Panel, symbol: str, ends: Rows, mu: Floats, sigma: float, p_up: Floats
) -> pd.DataFrame:
    """A forecast table: the same mean ``[N]`` and deviation on each of the H sessions."""
    horizon = panel.targets.shape[1]
    steps = range(1, horizon + 1)
    columns: dict[str, object] = {
        "symbol": [symbol] * len(ends),
        "date": panel.dates[ends].astype("datetime64[s]"),
        "close": panel.close[ends],
    }
    columns |= {f"mu_{i}": mu for i in steps}
    columns |= {f"sigma_{i}": np.full(len(ends), sigma) for i in steps}
    columns["p_up"] = p_up
    columns |= {f"y_{i}": panel.targets[ends, i - 1].astype(np.float64) for i in steps}
    return pd.DataFrame(columns)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
