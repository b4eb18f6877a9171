"""Hand-made results of a run, small enough to know by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnquant.report import Sources, read_sources
from vnquant.spec import RunSpec
from vnquant.workspace import Run, Workspace, write_json

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "{{ 7 * 7 }}' onload='alert(4)",
    "http://outside.example/x.png",
)
"""What a page that trusted its data would run, or fetch."""

SPEC = RunSpec(
    symbols=("AAA", "BBB", "CCC"),
    windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
)
DATES = pd.bdate_range("2023-01-02", periods=40)


def judged(accuracy: float, rank_ic: float | None) -> dict[str, Any]:
    """One row of a verdict."""
    return {
        "n": 40,
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.1, accuracy + 0.1],
        "base_rate": 0.5,
        "rank_ic": rank_ic,
        "rmse": 0.02,
        "ece": 0.03,
        "coverage_80": 0.79,
    }


def verdict(names: tuple[str, ...]) -> dict[str, Any]:
    """Accuracies of 51 %, 9 %, 52 % ... in 100, 9, 40 ... windows: wrong if sorted as text."""
    accuracies = [0.51, 0.09, *(0.52 + 0.01 * i for i in range(len(names) - 2))]
    return {
        "comparison": [{"name": "model", **judged(0.5123, 0.01)}],
        "by_symbol": {
            name: judged(a, None if i == 0 else -0.5 + a) | {"n": (100, 9)[i] if i < 2 else 40}
            for i, (name, a) in enumerate(zip(names, accuracies, strict=True))
        },
        "by_exchange": {},
        "reliability": [
            {"n": 20, "low": 0.4, "high": 0.5, "stated": 0.45, "observed": 0.5},
            {"n": 20, "low": 0.5, "high": 0.6, "stated": 0.55, "observed": 0.4},
        ],
        "gate": {"passed": False, "checks": [], "reason": f"Refused: {names[0]}."},
        "sentence": f"Hardly {names[-1]}.",
        "horizon": 2,
        "confidence_level": 0.9,
        "statistics": {"pooled": {"p_value": 0.25, names[0]: names[1]}},
        "verdicts": [
            {"symbol": n, "exchange": n, "passed": i == 1, "reason": f"because {n}"}
            for i, n in enumerate(names)
        ],
    }


def forecast(name: str) -> dict[str, Any]:
    """Rises by 1 % and falls by 1 %, with a daily deviation of 2 %."""
    return {
        "symbol": name,
        "exchange": "HOSE",
        "date": "2023-02-24",
        "close": 20.0,
        "return_1": 0.01,
        "return_2": -0.01,
        "price_1": 20.2,
        "price_2": 20.0,
        "volatility_1": 0.02,
        "volatility_2": 0.02,
        "expected_return": -0.0001,
        "volatility": 0.0283,
        "probability_up": 0.493,
    }


def equity() -> pd.DataFrame:
    """Up a tenth, then down a fifth; VNINDEX is unknown on the first day."""
    value = np.concatenate([np.linspace(1.0, 1.1, 20), np.linspace(1.1, 0.88, 20)])
    drawdown = value / np.maximum.accumulate(value) - 1.0
    benchmark = np.concatenate([[np.nan], np.linspace(1.0, 1.05, 39)])
    columns = {"equity": value, "drawdown": drawdown, "naive": value + 0.1, "benchmark": benchmark}
    return pd.DataFrame({"date": DATES, **columns})


def ic() -> pd.DataFrame:
    """RankIC alternates between 0.3 and -0.1: its mean is 0.1."""
    values = np.tile([0.3, -0.1], 20)
    return pd.DataFrame({"date": DATES, "ic": values, "rank_ic": values})


def run_in(path: Path, names: tuple[str, ...] = SPEC.symbols) -> Run:
    """A run of which every stage has finished, as files; ``names`` may be anything."""
    run = Workspace(path).create().run(SPEC)
    run.prepare()
    stage = {"finished": "2023-03-01T10:00:00+00:00", "seconds": 1.25, "platform": names[0]}
    code = {"version": "0.1.0", "commit": "a" * 40, "dirty": True}
    stage |= {"code": code, "python": "3.11", "packages": {"numpy": names[1]}}
    write_json(
        run.path / "manifest.json",
        {"created": "2023-03-01", "data_snapshot": names[2], "stages": {"train": stage}},
    )
    write_json(run.stage("evaluate") / "verdict.json", verdict(names))
    ic().to_parquet(run.stage("evaluate") / "ic.parquet")
    write_json(run.stage("forecast") / "forecast.json", [forecast(n) for n in names[:2]])
    write_json(run.stage("backtest") / "backtest.json", {"sharpe": 0.4, names[0]: names[1]})
    equity().to_parquet(run.stage("backtest") / "equity.parquet")
    quality = {"action": "note", "unit": "bars", "meaning": names[1], "count": 1234}
    bars = {"bars": 40, "kept": 39, "kept_share": 0.975, "segments": 1}
    symbols = {n: {"symbol": n, "first": n, "last": "2023-02-24", **bars} for n in names}
    totals = {"bars": 1300, "kept": 1299, "quarantined": 1, "breaks": 0}
    unseen = {**quality, "count": 0, "meaning": "never seen"}
    write_json(
        run.stage("ingest") / "quality.json",
        {**totals, "classes": {names[0]: quality, "unseen": unseen}, "symbols": symbols},
    )
    closes = {"close": np.linspace(18.0, 20.0, len(DATES))}
    parts = [pd.DataFrame({"symbol": n, "date": DATES, **closes}) for n in names]
    pd.concat(parts).to_parquet(run.stage("ingest") / "bars.parquet")
    for number, name in enumerate(names):
        meta = {"symbol": name, "member": 0, "status": "finished", "best_epoch": 1}
        path = run.stage("train") / "models" / f"{number}.m0.json"
        write_json(path, {**meta, "history": [[1.5, 1.4], [1.2, 1.1], [1.0, 1.3]]})
    pool = {"symbol": "pool", "member": 0, "status": "complete", "best_epoch": 0}
    path = run.stage("train") / "pretrain" / "models" / "pool.m0.json"
    write_json(path, {**pool, "history": [[1.6, 1.25], [1.5, 1.3]]})
    for name in ("ingest", "evaluate", "backtest"):
        run.stage(name).finish(failed={})
    run.stage("train").finish(failed={names[2]: f"{names[2]} diverged"})
    run.stage("forecast").finish(without={names[2]: f"no {names[2]}"})
    gate = verdict(names)["gate"]
    run.stage("deploy").finish(deployed=True, set=names[1], gate=gate)
    return run


def sources_in(path: Path, names: tuple[str, ...] = SPEC.symbols) -> Sources:
    return read_sources(run_in(path, names))
