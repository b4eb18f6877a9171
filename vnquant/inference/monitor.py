"""How a deployed set has done on sessions that came after it was judged."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vnquant.errors import DataError
from vnquant.evaluation import drift
from vnquant.evaluation.metrics import summarise
from vnquant.features.windows import Scaler, covered_rows, split
from vnquant.inference.deployed import Ready
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.workspace import read_json


def watch(ready: Ready, prices: Path, since: dt.date) -> dict[str, Any]:
    """Judge a set on the windows of newer prices whose outcome is known.

    Args:
        prices: history and the newer sessions, as for training.
        since: only forecasts made after this date count; the last session the set knew.

    Returns:
        ``since``, ``weeks`` (`vnquant.evaluation.drift.by_week`), ``realised`` and ``expected``
        (pooled figures), ``stability`` (index by feature), ``alerts``.

    Raises:
        DataError: no newer window has a known outcome.
    """
    panel = ready.open_panel(ready.symbols, prices)
    windows = [w for w in split(panel, ready.spec.windows) if w.symbol in ready.symbols]
    cut = np.datetime64(since, "D")
    ends = {w.symbol: w.test[panel.dates[w.test] > cut] for w in windows}
    ends = {symbol: rows for symbol, rows in ends.items() if len(rows)}
    if not ends:
        raise DataError(
            f"no forecast made after {since} has a known outcome",
            where=str(prices),
            fix=f"give prices that go on for {ready.spec.windows.horizon} sessions and more",
        )
    # Of an old set the verdict's figures are uncalibrated, and so must be what is beside them: the
    # models' own calibration counts here, one that only the verdict holds does not.
    models = load_models(ready.models, ends)
    table = with_outcomes(predict(models, panel, ends), panel, ends)
    spec, exchanges = ready.spec, dict(zip(panel.symbols, panel.exchanges, strict=True))
    found = summarise(table, spec.evaluation, spec.windows.horizon, spec.training.seed, exchanges)
    judged = (read_json(ready.verdict) or {}).get("comparison")
    if not judged:
        raise DataError(
            "the judgement on this set is missing",
            where=str(ready.verdict),
            fix="run `vnquant registry verify`, then train and deploy anew",
        )
    scalers = {m.symbol: Scaler.from_dict(m.meta["scaler"]) for m in models}
    at = {symbol: slice(*panel.offsets[i : i + 2]) for i, symbol in enumerate(panel.symbols)}
    before, after = list[npt.NDArray[np.float32]](), list[npt.NDArray[np.float32]]()
    for w in (w for w in windows if w.symbol in ends):
        here = at[w.symbol]
        since_then = here.start + np.flatnonzero(panel.dates[here] > cut)
        for part, rows in ((before, covered_rows(w.train, w.lookback)), (after, since_then)):
            part.append(scalers[w.symbol].transform(panel.features[rows]))
    shifts = drift.stability_index(
        *(np.concatenate(part).astype(np.float64) for part in (before, after))
    )
    return {
        "since": str(since),
        "weeks": drift.by_week(table),
        "realised": found["pooled"],
        "expected": judged[0],
        "stability": {
            name: float(s) if np.isfinite(s) else None
            for name, s in zip(panel.names, shifts, strict=True)
        },
        "alerts": drift.alerts(found["pooled"], judged[0], panel.names, shifts),
    }


def to_text(found: dict[str, Any]) -> str:
    """The weeks as a table, the whole beside what was expected, then the alerts."""
    lines = [f"{'week of':<12}{'windows':>9}{'accuracy':>10}{'RankIC':>9}"]
    for row in found["weeks"]:
        ic = "-" if row["rank_ic"] is None else f"{row['rank_ic']:+.3f}"
        lines.append(f"{row['week']:<12}{row['n']:>9}{row['accuracy']:>10.1%}{ic:>9}")
    for name in ("realised", "expected"):
        pooled = found[name]
        interval = pooled["accuracy_interval"]
        band = "too few dates for an interval"
        if interval is not None:
            band = f"{interval[0]:.2%} to {interval[1]:.2%}"
        lines.append(f"{name}: {pooled['accuracy']:.2%} of {pooled['n']} windows right ({band})")
    lines += [f"ALERT: {alert}." for alert in found["alerts"]] or ["No alert."]
    return "\n".join(lines) + "\n"
