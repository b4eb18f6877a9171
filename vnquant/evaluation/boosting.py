"""LightGBM as a rival, where it is installed (extra ``study``): pooled, one a symbol, and ranked.

The first two have the inputs of the ridge regressions: scaled features of the last session to the
H-session sum. The ranked one has what the pooled recipe of `vnquant.spec.POOLED` has: unscaled
features, and the rank of the sum among the symbols of a session. The number of trees and the
residual's deviation come from the validation windows, as the best epoch of the model does; no test
window is read.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vnquant.evaluation import baselines as base
from vnquant.features.panel import Panel
from vnquant.features.windows import Scaler, Windows
from vnquant.spec import RunSpec

TREES = 300
PATIENCE = 30
SETTINGS: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.03,
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "lambda_l2": 1.0,
    # The same trees whatever the number of threads. One is the fastest for tables this small where
    # other work shares the cores: OpenMP's threads wait for each other by spinning.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}

Pair = tuple[base.Floats, base.Floats]


def available() -> bool:
    """Whether LightGBM can be loaded; its wheel needs the libgomp of the system."""
    try:
        importlib.import_module("lightgbm")
    except (ImportError, OSError):
        return False
    return True


def compare(
    panel: Panel,
    windows: list[Windows],
    scalers: Mapping[str, Scaler],
    test_ends: base.Ends,
    spec: RunSpec,
) -> dict[str, pd.DataFrame]:
    """The forecast tables by name; none where LightGBM is not installed."""
    if not available():
        return {}
    train = {w.symbol: _pair(panel, w.train, scalers[w.symbol]) for w in windows}
    valid = {w.symbol: _pair(panel, w.validation, scalers[w.symbol]) for w in windows}
    pooled = _fitted(_joined(train), _joined(valid), spec)
    tables: dict[str, list[pd.DataFrame]] = {"lightgbm_per_symbol": [], "lightgbm_pooled": []}
    for w in windows:
        own = _fitted(train[w.symbol], valid[w.symbol], spec)
        for name, model in (("lightgbm_per_symbol", own), ("lightgbm_pooled", pooled)):
            ends, scaler = test_ends[w.symbol], scalers[w.symbol]
            tables[name].append(_table(panel, w.symbol, ends, scaler, model, valid[w.symbol]))
    tables["lightgbm_ranked"] = _ranked(panel, windows, test_ends, spec)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def _ranked(
    panel: Panel, windows: list[Windows], test_ends: base.Ends, spec: RunSpec
) -> list[pd.DataFrame]:
    """Each symbol's table by a model of which symbol of a session will do better."""
    train, valid = (
        np.concatenate([getattr(w, part) for w in windows]) for part in ("train", "validation")
    )
    inputs = panel.features
    total = panel.targets.astype(np.float64).sum(axis=1)
    known, later = ((inputs[rows], _session_ranks(panel, rows, total)) for rows in (train, valid))
    model = _fitted(known, later, spec)
    score = model.predict(inputs[train])
    # From ranks to returns: by how much a symbol of a higher rank did better in training.
    slope = float(score @ total[train]) / max(float(score @ score), base.MIN_SIGMA)
    residual = total[valid] - slope * model.predict(inputs[valid])
    deviation, tables = max(float(residual.std()), base.MIN_SIGMA), []
    for w in windows:
        ends, forecast = test_ends[w.symbol], np.zeros(0)
        if len(ends):
            forecast = slope * np.asarray(model.predict(inputs[ends]), dtype=np.float64)
        h, p_up = panel.horizon, base.probability(forecast, deviation)
        sigma = deviation / math.sqrt(h)
        tables.append(base.table(panel, w.symbol, ends, forecast / h, sigma, p_up))
    return tables


def _session_ranks(panel: Panel, rows: base.Rows, values: base.Floats) -> base.Floats:
    """Ranks among the rows of a session, between -1 and 1 and 0 on average."""
    by_session = pd.Series(values[rows]).groupby(panel.session[rows])
    n = by_session.transform("size")
    return np.asarray((2 * by_session.rank() - n - 1) / n, dtype=np.float64)


def _pair(panel: Panel, rows: base.Rows, scaler: Scaler) -> Pair:
    """Inputs ``[N, F]`` and the H-session sums ``[N]`` in units of the daily deviation."""
    x = scaler.transform(panel.features[rows]).astype(np.float64)
    return x, panel.targets[rows].astype(np.float64).sum(axis=1) / scaler.target_scale


def _joined(pairs: Mapping[str, Pair]) -> Pair:
    x, y = zip(*pairs.values(), strict=True)
    return np.concatenate(x), np.concatenate(y)


def _fitted(train: Pair, valid: Pair, spec: RunSpec) -> Any:
    import lightgbm

    known = lightgbm.Dataset(*train)
    return lightgbm.train(
        {**SETTINGS, "seed": spec.training.seed % 2**31},
        known,
        num_boost_round=TREES,
        valid_sets=[lightgbm.Dataset(*valid, reference=known)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def _table(
    panel: Panel, symbol: str, ends: base.Rows, scaler: Scaler, model: Any, valid: Pair
) -> pd.DataFrame:
    residual = valid[1] - model.predict(valid[0])
    scale, h = scaler.target_scale, panel.horizon
    deviation = max(float(residual.std()) * scale, base.MIN_SIGMA)
    forecast = np.zeros(0)
    if len(ends):
        inputs = scaler.transform(panel.features[ends]).astype(np.float64)
        forecast = np.asarray(model.predict(inputs), dtype=np.float64) * scale
    p_up = base.probability(forecast, deviation)
    return base.table(panel, symbol, ends, forecast / h, deviation / math.sqrt(h), p_up)
