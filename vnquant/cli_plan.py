"""From the words of ``vnquant train`` to a RunSpec; shared by every target that runs it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vnquant.errors import DataError, UsageError
from vnquant.spec import (
    PHASE,
    POOLED,
    PRESETS,
    DataSpec,
    FeatureSpec,
    GateSpec,
    PretrainSpec,
    RunSpec,
    TrainingSpec,
    WindowSpec,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

HISTORY_YEARS = 10
TEST_SESSIONS = 504
VALIDATION_SESSIONS = 252
LEAST_SESSIONS = 400
LEAST_POOLED = 20
"""Symbols from which on the recipe ``auto`` is the pooled one: so many were surely better off
pooled, ten were not (docs/decisions.md)."""

HALF_LIFE = 10.0
"""Of the inputs of the pooled recipe, in sessions (docs/decisions.md)."""

TRAINING = ("epochs", "batch_size", "learning_rate", "patience", "seed", "precision")
GATE = ("min_accuracy", "max_rmse", "min_sharpe", "max_drawdown", "require_significance")
PLANNED = frozenset(
    {
        *("symbols", "universe", "start", "end", "validation_start", "test_start", "preset"),
        *("features", "recipe", "lookback", "half_life"),
        *TRAINING,
        *GATE,
    }
)
"""The options of ``train`` that are part of the spec; all others say where and how to execute."""


@dataclass(frozen=True)
class Job:
    """A spec, and the bars it was made from (to save reading them twice)."""

    spec: RunSpec
    raw: pd.DataFrame


def stages_of(*, optimize_inference: bool) -> list[str]:
    """The stages that ``train`` runs, in order."""
    stages = ["ingest", "features", "train", "evaluate", "backtest", "deploy", "forecast", "report"]
    if optimize_inference:
        stages.insert(stages.index("deploy"), "optimize")
    return stages


def plan(
    *,
    prices: Path | None,
    symbols: Sequence[str],
    universe: str | None,
    start: dt.date | None,
    end: dt.date | None,
    validation_start: dt.date | None,
    test_start: dt.date | None,
    preset: str,
    features: Literal["v1", "v2"] = "v1",
    recipe: Literal["auto", "pooled", "per-symbol"] = "auto",
    lookback: int | None = None,
    half_life: float | None = None,
    **settings: Any,
) -> Job:
    """Read the prices and settle everything that the words leave open.

    Args:
        recipe: auto: pooled from `LEAST_POOLED` symbols on.
        lookback: sessions in a window; None: the spec's default.
        half_life: of the inputs, in sessions, 0 for none; None: the recipe's.
        settings: the options named in `TRAINING` and `GATE`; None means the spec's default.

    Raises:
        UsageError: unknown symbols, or dates that leave no room.
        DataError: prices that cannot be used.
    """
    from vnquant.market.index import levels_for
    from vnquant.market.sources import open_source, snapshot_hash
    from vnquant.market.universe import resolve

    source = open_source("folder" if prices else "synthetic", prices)
    names = resolve(symbols, universe, source.known_symbols())
    raw = source.load(names, start=start, end=end)
    raw, windows = _default_dates(raw, validation_start, test_start)
    pooled = recipe == "pooled" or (recipe == "auto" and len(names) >= LEAST_POOLED)
    if half_life is None and pooled:
        half_life = HALF_LIFE
    if lookback is not None:
        windows = windows.model_copy(update={"lookback": lookback})
    if half_life:
        windows = windows.model_copy(update={"half_life": half_life})
    begin, last = raw["date"].min().date(), raw["date"].max().date()
    data = DataSpec(
        source="folder" if prices else "synthetic",
        snapshot=snapshot_hash(raw, levels_for(features, prices, begin, last)),
        start=begin,
        end=last,
    )
    given = {k: v for k, v in settings.items() if v is not None}
    chosen = {k: given[k] for k in TRAINING if k in given}
    if chosen.get("patience") == 0:
        chosen["patience"] = None
    pretrain: PretrainSpec | None = None
    if pooled:
        # There is one phase, so its words are meant.
        own = {k: chosen.pop(k) for k in PHASE if k in chosen}
        pretrain = PretrainSpec(**{**POOLED.model_dump(), **own})
    spec = RunSpec(
        symbols=tuple(names),
        data=data,
        windows=windows,
        features=FeatureSpec(name=features),
        model=PRESETS[preset],
        training=TrainingSpec(**chosen),
        pretrain=pretrain,
        gate=GateSpec(**{k: given[k] for k in GATE if k in given}),
    )
    return Job(spec, raw)


def _default_dates(
    raw: pd.DataFrame, validation_start: dt.date | None, test_start: dt.date | None
) -> tuple[pd.DataFrame, WindowSpec]:
    """Ten years of history, the last two years as test part, the year before as validation.

    Short histories keep the same proportions: a fifth for each.
    """
    from vnquant.market.sessions import sessions

    last = raw["date"].max()
    first = raw["date"].min()
    recent = raw[raw["date"] > last - _years(HISTORY_YEARS)] if first < last else raw
    calendar = sessions(recent)
    if len(calendar) < LEAST_SESSIONS:
        raise DataError(
            f"only {len(calendar)} sessions, from {first:%Y-%m-%d} to {last:%Y-%m-%d}",
            where="prices",
            fix=f"give at least {LEAST_SESSIONS}: training, validation and test must not overlap",
        )
    test = min(TEST_SESSIONS, len(calendar) // 5)
    validation = min(VALIDATION_SESSIONS, len(calendar) // 5)
    if test_start is None:
        test_start = _day(calendar[-test])
    before = calendar[calendar < _day64(test_start)]
    if validation_start is None:
        if len(before) <= validation:
            raise UsageError(
                f"{test_start} leaves {len(before)} sessions before the test part",
                where="--test-start",
                fix="choose a later date",
            )
        validation_start = _day(before[-validation])
    if not validation_start < test_start:
        raise UsageError(
            f"{validation_start} is not before the test part's {test_start}",
            where="--validation-start",
            fix="choose an earlier date",
        )
    return recent, WindowSpec(validation_start=validation_start, test_start=test_start)


def _years(count: int) -> Any:
    import pandas as pd

    return pd.DateOffset(years=count)


def _day(value: np.datetime64) -> dt.date:
    day: dt.date = value.astype("datetime64[D]").astype(object)
    return day


def _day64(value: dt.date) -> np.datetime64:
    import numpy as np

    return np.datetime64(value, "D")
