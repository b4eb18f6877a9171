"""The run's forecasts beside those of the deployed set, on the same symbols and dates."""

from __future__ import annotations

import pandas as pd

from vnquant.evaluation.comparison import Difference, compare_forecasts
from vnquant.evaluation.recalibration import stored
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.registry import Registry
from vnquant.spec import load_spec
from vnquant.stages.context import Context
from vnquant.workspace import read_json


def beside_deployed(ctx: Context) -> Difference | None:
    """Brier score of the run minus that of the deployed set, on the test windows of both.

    Of both the probabilities that `forecast` shows are judged.

    None where nothing is deployed, the deployed set is this run's own, reads other features,
    another lookback or horizon, or shares no judged symbol. The deployed set may have been trained
    on some of these dates: that favours it, never the challenger.
    """
    current = Registry(ctx.workspace.registry).current()
    if current is None or current.meta.get("spec_digest") == ctx.spec.digest:
        return None
    path = current.path / "spec.json"
    if not path.exists():
        return None
    theirs, ours = load_spec(path), ctx.spec
    if theirs.features != ours.features or any(
        getattr(theirs.windows, name) != getattr(ours.windows, name)
        for name in ("lookback", "horizon")
    ):
        return None
    mine = pd.read_parquet(ctx.stage("evaluate") / "forecasts.parquet")
    common = set(current.meta["symbols"]) & set(mine["symbol"])
    ends = {w.symbol: w.test for w in ctx.windows_of(sorted(common))}
    if not ends:
        return None
    curve = stored(read_json(current.path / "verdict.json"))
    models = load_models(current.path / "models", ends, otherwise=curve)
    table = predict(models, ctx.panel, ends, device=ctx.profile.torch_device)
    rival = with_outcomes(table, ctx.panel, ends)
    judged = ours.evaluation
    return compare_forecasts(
        mine[mine["symbol"].isin(common)],
        rival,
        samples=judged.bootstrap_samples,
        level=judged.confidence_level,
        seed=ours.training.seed,
    )["brier"]
