"""Probes that bring leaks out: change what a component must not know, and see whether it notices.

Each takes the component as a function, so that a test can give it the honest one and one with a
planted leak, and returns what it found, as `vnquant.evaluation.leaks` does. They compute things
twice or more, which is why they belong to tests and not to a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.evaluation.correlation import correlation_series
from vnquant.evaluation.leaks import Leak
from vnquant.features.panel import Panel
from vnquant.features.windows import Rows, Scaler, Windows, covered_rows

Prepare = Callable[[pd.DataFrame], Panel]
"""Raw bars (columns symbol, date, adj_close and more) to a panel."""
Forecast = Callable[[Panel], pd.DataFrame]
"""A panel to a forecast table; columns ``y_...`` are outcomes, all others forecasts."""

CLOSE = 1e-4
"""Relative difference of two float32 features that is rounding, where prices were rescaled."""
DEVIATIONS = 4.0
"""A score on noise that is further than this from chance was not reached by chance."""


def not_causal(prepare: Prepare, raw: pd.DataFrame, cuts: Sequence[str]) -> list[Leak]:
    """What changes in the rows up to a date when all later bars are taken away.

    Finds the target among the features, centred windows, gaps filled from the future, and
    statistics of the whole history.

    Args:
        cuts: dates, YYYY-MM-DD; the more of them fall into gaps, the sharper the probe.
    """
    whole, found = _by_row(prepare(raw)), []
    for cut in cuts:
        then = _by_row(prepare(raw[raw["date"] <= pd.Timestamp(cut)]))
        later = whole[whole.index.get_level_values("date") <= pd.Timestamp(cut)]
        other = then.index.symmetric_difference(later.index)
        if len(other):
            symbol, date = other.to_list()[0]
            what = f"the bar of {date:%Y-%m-%d} is there only with, or only without, later bars"
            found.append(Leak(symbol, f"{what} than {cut}"))
        both = then.index.intersection(later.index)
        found += _differences(then.loc[both], later.loc[both], f"without bars after {cut}")
    return found


def depends_on_level(prepare: Prepare, raw: pd.DataFrame, factor: float = 0.5) -> list[Leak]:
    """Features that a later corporate action would change.

    A split after the last bar rescales the whole published ``adj_close`` and nothing else.
    """
    after = raw.assign(adj_close=raw["adj_close"] * factor)
    before, later = _by_row(prepare(raw)), _by_row(prepare(after))
    return list(_differences(before, later, f"with adj_close times {factor}", CLOSE))


def _by_row(panel: Panel) -> pd.DataFrame:
    symbols = np.repeat(np.array(panel.symbols), np.diff(panel.offsets))
    dates = pd.DatetimeIndex(panel.dates.astype("datetime64[s]"))
    index = pd.MultiIndex.from_arrays([symbols, dates], names=["symbol", "date"])
    frame = pd.DataFrame(panel.features, index=index, columns=list(panel.names))
    return frame.assign(session=panel.session)


def _differences(
    a: pd.DataFrame, b: pd.DataFrame, when: str, tolerance: float = 0.0
) -> Iterator[Leak]:
    same = np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
    for j in np.flatnonzero(~same.all(axis=0)):
        rows = np.flatnonzero(~same[:, j])
        symbol, date = a.index[int(rows[0])]
        yield Leak(
            f"feature {a.columns[int(j)]}",
            f"{len(rows)} of {len(a)} values are others {when}, first {symbol} on {date:%Y-%m-%d}",
        )


def fits_beyond_training(
    fit: Callable[[Panel, Windows], Scaler], panel: Panel, windows: Windows
) -> list[Leak]:
    """Whether a scale changes with rows that no training window covers."""
    random = np.random.default_rng(0)
    covered = np.zeros(len(panel.features), dtype=bool)
    covered[covered_rows(windows.train, windows.lookback)] = True
    known = np.zeros_like(covered)
    known[windows.train] = True
    changed = replace(
        panel,
        features=_noise_where(~covered, panel.features, random),
        targets=_noise_where(~known, panel.targets, random),
    )
    before, after = fit(panel, windows).to_dict(), fit(changed, windows).to_dict()
    wrong = [name for name, value in before.items() if after[name] != value]
    where = f"scaler of {windows.symbol}"
    return [Leak(where, f"{name} depends on rows outside of training") for name in wrong]


def reads_outcomes(forecast: Forecast, panel: Panel, test: Mapping[str, Rows]) -> list[Leak]:
    """Forecasts that change with the outcomes they are judged by: a threshold tuned on the test."""
    judged = np.zeros(len(panel.targets), dtype=bool)
    judged[np.concatenate(list(test.values()))] = True
    noise = _noise_where(judged, panel.targets, np.random.default_rng(0))
    opposite = np.where(judged[:, None], -panel.targets, panel.targets)
    before, wrong = forecast(panel), set()
    # Noise may happen to agree with what was tuned on; then its opposite does not.
    for targets in (noise, opposite):
        after = forecast(replace(panel, targets=targets))
        wrong |= {c for c in before.columns if not before[c].equals(after[c])}
    named = sorted(c for c in wrong if not c.startswith("y_"))
    return [Leak(f"forecast {c}", "depends on the outcomes of the test part") for c in named]


def beats_noise(table: pd.DataFrame, horizon: int) -> list[Leak]:
    """A score that nobody can reach on prices without a signal.

    Args:
        table: forecasts of noise, with the columns mu_h and y_h, of independent symbols.
    """
    forecast, outcome = (
        table[[f"{name}_{h + 1}" for h in range(horizon)]].sum(axis=1).to_numpy(np.float64)
        for name in ("mu", "y")
    )
    together = np.zeros(len(table), dtype=np.int64)  # as if all were of one date
    rank_ic = float(correlation_series(forecast, outcome, together, ranked=True)[0])
    # Outcomes of neighbouring windows share all sessions but one.
    score = rank_ic * math.sqrt(len(table) / horizon)
    if not abs(score) > DEVIATIONS:
        return []
    return [Leak("forecasts of noise", f"rank correlation is {score:+.1f} deviations from chance")]


def _noise_where(
    chosen: npt.NDArray[np.bool_], values: npt.NDArray[np.float32], random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The values ``[R, K]`` with noise in the chosen rows, of a like size where they are finite."""
    noise = random.normal(1.0, 3.0, values.shape).astype(np.float32)
    return np.where(chosen[:, None], noise, values)
