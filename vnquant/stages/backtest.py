"""Stage backtest: what the judged forecasts would have earned under the rules of the exchanges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vnquant.backtest import replay as book
from vnquant.backtest.performance import Benchmark, align
from vnquant.errors import DataError
from vnquant.evaluation.sharpe import deflated_sharpe, moments
from vnquant.market.index import index_levels
from vnquant.stages.context import Context
from vnquant.workspace import read_json, write_bytes, write_json, written_aside


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return ctx.of_these_models(marker)


def run(ctx: Context) -> dict[str, Any]:
    spec = ctx.spec
    judged = ctx.marker("evaluate")
    table = pd.read_parquet(ctx.stage("evaluate") / "forecasts.parquet")
    bars = pd.read_parquet(ctx.stage("ingest") / "bars.parquet")
    calendar = np.array(read_json(ctx.stage("ingest") / "calendar.json"), dtype="datetime64[D]")
    ctx.events.progress("backtest", 0, 1, "simulating")
    result = book.replay(table, bars, calendar, spec.backtest, spec.windows.horizon)
    index = _index(ctx, result.bars.dates)
    content = book.figures(result, index)
    content["metrics"]["deflated_sharpe"] = _deflated(result, spec.backtest.trials)
    dates = np.datetime_as_string(result.bars.dates, unit="D")
    content |= {
        "capital": spec.backtest.capital,
        "trials": spec.backtest.trials,
        "sessions": len(dates),
        "first": str(dates[0]),
        "last": str(dates[-1]),
        "symbols": len(result.bars.symbols),
    }
    stage = ctx.stage("backtest")
    frames = {"equity": book.curves(result, index), "fills": book.fills(result)}
    for name, frame in frames.items():
        with written_aside(stage / f"{name}.parquet") as aside:
            frame.to_parquet(aside, index=False, compression="zstd")
    write_json(stage / "backtest.json", content)
    write_bytes(stage / "backtest.md", book.to_markdown(content).encode())
    ctx.events.progress("backtest", 1, 1)
    return {
        "symbols": judged["symbols"],
        "snapshot": judged["snapshot"],
        "metrics": content["metrics"],
        "failed": {},
    }


def _index(ctx: Context, dates: Any) -> Benchmark | None:
    """VNINDEX on the sessions; None where the given prices do not hold it, or not all of it."""
    try:
        levels = index_levels(ctx.options.prices)
        if levels.empty:
            return None
        return align(dates, levels["date"].to_numpy(), levels["close"].to_numpy(np.float64))
    except DataError as reason:
        ctx.events.emit("no_benchmark", reason=str(reason))
        return None


def _deflated(of: book.Replay, trials: int) -> float | None:
    """Probability that the Sharpe ratio is more than the best of ``trials`` without skill.

    The variance over trials is that of a skill-less ratio of as many sessions, 1 / (n - 1).
    """
    known = moments(of.daily)
    return None if known is None else deflated_sharpe(known, trials, 1 / (known.n - 1))
