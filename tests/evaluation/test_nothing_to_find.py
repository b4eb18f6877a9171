"""On returns that nothing can forecast, the gate lets almost nobody through."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from vnquant.evaluation.gates import decide
from vnquant.evaluation.metrics import summarise
from vnquant.spec import EvaluationSpec, GateSpec

FORECASTERS = 100
SYMBOLS, DAYS, HORIZON, BLOCK = 6, 400, 5, 10
EVALUATION = EvaluationSpec(bootstrap_samples=200)


def shuffled_market(rng: np.random.Generator) -> np.ndarray:
    """Daily log returns ``[T, S]``: one market and own noise, in shuffled blocks of sessions, so
    that volatility and the shares' common moves stay and any order is lost."""
    market = rng.normal(0, 0.008, (2 * DAYS, 1))
    returns = market + rng.normal(0, 0.015, (2 * DAYS, SYMBOLS))
    blocks = returns.reshape(-1, BLOCK, SYMBOLS)
    return rng.permutation(blocks).reshape(-1, SYMBOLS)


def trained_forecasts(rng: np.random.Generator) -> pd.DataFrame:
    """A ridge a symbol on its last ten returns, fitted on the first half, judged on the second."""
    returns = shuffled_market(rng)
    past = np.lib.stride_tricks.sliding_window_view(returns, 10, axis=0)[:-HORIZON]
    ahead = np.lib.stride_tricks.sliding_window_view(returns, HORIZON, axis=0)[10:]
    dates = pd.date_range("2020-01-01", periods=len(past), freq="B")
    parts = []
    for s in range(SYMBOLS):
        model = Ridge(alpha=1e-3).fit(past[: DAYS - 20, s], ahead[: DAYS - 20, s].sum(axis=1))
        total = model.predict(past[DAYS:, s])
        columns: dict[str, object] = {"symbol": f"S{s}", "date": dates[DAYS:], "p_up": 0.5}
        columns["p_up"] = 0.5 + np.clip(total * 5, -0.4, 0.4)
        columns |= {f"mu_{h + 1}": total / HORIZON for h in range(HORIZON)}
        columns |= {f"sigma_{h + 1}": np.full(len(total), 0.017) for h in range(HORIZON)}
        columns |= {f"y_{h + 1}": ahead[DAYS:, s, h] for h in range(HORIZON)}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def pooled() -> list[dict[str, object]]:
    venues = {f"S{s}": "HOSE" for s in range(SYMBOLS)}
    return [
        summarise(trained_forecasts(np.random.default_rng(n)), EVALUATION, HORIZON, n, venues)[
            "pooled"
        ]
        for n in range(FORECASTERS)
    ]


@pytest.mark.slow
def test_under_five_percent_pass_where_there_is_nothing_to_find(
    pooled: list[dict[str, object]],
) -> None:
    """Without the backtest's bars, which could only refuse more."""
    passed = sum(decide(p, GateSpec()).passed for p in pooled)
    assert passed / FORECASTERS < 0.05


@pytest.mark.slow
def test_the_bare_bar_would_let_more_through(pooled: list[dict[str, object]]) -> None:
    """Why significance is part of the gate."""
    bare = sum(decide(p, GateSpec(require_significance=False)).passed for p in pooled)
    proven = sum(decide(p, GateSpec()).passed for p in pooled)
    print(f"bare {bare}, proven {proven} of {FORECASTERS}")
    assert bare / FORECASTERS > 0.05
    assert bare > proven
