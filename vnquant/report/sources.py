"""What a report is made from: results of a run's finished stages, each of which may be absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnquant.evaluation.correlation import correlation_series
from vnquant.evaluation.metrics import horizon_of
from vnquant.spec import RunSpec
from vnquant.workspace import Run, read_json

PAST_SESSIONS = 60
"""Closes shown before each forecast."""

Json = dict[str, Any]

FILES = {
    "ingest": ("quality.json", "bars.parquet"),
    "evaluate": ("verdict.json", "forecasts.parquet", "ic.parquet"),
    "backtest": ("backtest.json", "equity.parquet"),
    "deploy": ("DONE.json",),
    "forecast": ("forecast.json", "DONE.json"),
}
"""Files of each stage that a report reads, beside the manifest and the models' metadata."""


@dataclass(frozen=True)
class Training:
    """One model's way through training.

    ``history`` has (training, validation) loss per epoch; ``best_epoch`` counts from 0, None
    if no validation loss was ever finite, or lower than that of the pooled weights it began with.
    """

    symbol: str
    member: int
    status: str
    best_epoch: int | None
    history: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Sources:
    """Everything a report shows. None, or empty, where the stage that writes it has not finished.

    Attributes:
        verdict: ``evaluate/verdict.json``, see `vnquant.evaluation.verdict.build`.
        forecasts: rows of ``forecast/forecast.json``; ``unforecast`` says why symbols have none.
        failed: symbols that a stage gave up, with the reason.
        pooled: the models that learned from all symbols together, where there are any.
        ic: date, ic, rank_ic (correlations over the symbols of a date; NaN with too few).
        equity: date, equity, drawdown, naive, benchmark (rebased to 1, may be NaN).
        closes: symbol, date, close (thousand VND) of the last `PAST_SESSIONS` usable bars.
        digests: path inside the run to the sha256 of the file that was read.
    """

    spec: RunSpec
    manifest: Json = field(default_factory=dict)
    verdict: Json | None = None
    deployment: Json | None = None
    quality: Json | None = None
    backtest: Json | None = None
    forecasts: tuple[Json, ...] = ()
    unforecast: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    trainings: tuple[Training, ...] = ()
    pooled: tuple[Training, ...] = ()
    ic: pd.DataFrame | None = None
    equity: pd.DataFrame | None = None
    closes: pd.DataFrame | None = None
    digests: dict[str, str] = field(default_factory=dict)


def digests(run: Run) -> dict[str, str]:
    """The sha256 of every file that a report of this run would read now."""
    found = {
        path.relative_to(run.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _paths(run)
    }
    # The manifest also grows by the report itself, which must not make the report outdated.
    text = json.dumps(_manifest(run), sort_keys=True)
    return found | {"manifest.json": hashlib.sha256(text.encode()).hexdigest()}


def read_sources(run: Run) -> Sources:
    """Read what the finished stages of a run have left; a damaged JSON file counts as absent."""

    def document(stage: str, name: str) -> Any:
        return read_json(run.stage(stage) / name) if run.stage(stage).done() else None

    failed: dict[str, str] = {}
    for stage in ("ingest", "train", "evaluate"):
        failed |= (run.stage(stage).done() or {}).get("failed") or {}
    return Sources(
        spec=run.spec,
        manifest=_manifest(run),
        verdict=document("evaluate", "verdict.json"),
        deployment=run.stage("deploy").done(),
        quality=document("ingest", "quality.json"),
        backtest=document("backtest", "backtest.json"),
        forecasts=tuple(document("forecast", "forecast.json") or ()),
        unforecast=(run.stage("forecast").done() or {}).get("without") or {},
        failed=failed,
        trainings=tuple(_trainings(_models(run))),
        pooled=tuple(_trainings(_pooled(run))),
        ic=_ic(run),
        equity=_table(run, "backtest", "equity.parquet"),
        closes=_closes(run),
        digests=digests(run),
    )


def _paths(run: Run) -> Iterator[Path]:
    for stage, names in FILES.items():
        if run.stage(stage).done() is not None:
            yield from (p for p in (run.stage(stage) / n for n in names) if p.is_file())
    yield from (*_models(run), *_pooled(run))


def _models(run: Run) -> list[Path]:
    return sorted((run.stage("train") / "models").glob("*.json"))


def _pooled(run: Run) -> list[Path]:
    return sorted((run.stage("train") / "pretrain" / "models").glob("*.json"))


def _manifest(run: Run) -> Json:
    manifest: Json = read_json(run.path / "manifest.json") or {}
    stages = {k: v for k, v in manifest.get("stages", {}).items() if k != "report"}
    return manifest | {"stages": stages} if manifest else {}


def _trainings(metadata: Iterable[Path]) -> Iterator[Training]:
    for path in metadata:
        meta = read_json(path)
        if meta is not None:
            history = tuple((float(a), float(b)) for a, b in meta["history"])
            yield Training(
                symbol=str(meta["symbol"]),
                member=int(meta["member"]),
                status=str(meta["status"]),
                best_epoch=meta["best_epoch"],
                history=history,
            )


def _table(run: Run, stage: str, name: str, columns: list[str] | None = None) -> Any:
    path = run.stage(stage) / name
    if run.stage(stage).done() is None or not path.is_file():
        return None
    return pd.read_parquet(path, columns=columns)


def _ic(run: Run) -> pd.DataFrame | None:
    """What evaluate wrote, or the same from its forecasts (runs from before it wrote this)."""
    written = _table(run, "evaluate", "ic.parquet")
    if written is not None:
        return pd.DataFrame(written)
    table = _table(run, "evaluate", "forecasts.parquet")
    return None if table is None else ic_by_date(table)


def ic_by_date(table: pd.DataFrame) -> pd.DataFrame:
    """IC and RankIC of every date of a forecast table: date, ic, rank_ic, in rising order."""
    steps = range(1, horizon_of(table) + 1)
    forecast, realised = (
        table[[f"{name}_{h}" for h in steps]].to_numpy(np.float64).sum(axis=1)
        for name in ("mu", "y")
    )
    dates, day = np.unique(table["date"].to_numpy(), return_inverse=True)
    series = {
        name: correlation_series(forecast, realised, day, ranked=ranked)
        for name, ranked in (("ic", False), ("rank_ic", True))
    }
    return pd.DataFrame({"date": dates, **series})


def _closes(run: Run) -> pd.DataFrame | None:
    bars = _table(run, "ingest", "bars.parquet", ["symbol", "date", "close"])
    if bars is None:
        return None
    last = bars.groupby("symbol", observed=True).tail(PAST_SESSIONS)
    return pd.DataFrame(last.reset_index(drop=True))
