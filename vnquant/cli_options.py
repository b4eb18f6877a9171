"""Option groups shared by commands. The flag set is frozen by a test."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Repeated here because the pipeline's module is too heavy for --help; a test compares them.
STAGE_NAMES = (
    *("ingest", "features", "train", "evaluate", "backtest"),
    *("optimize", "deploy", "forecast", "report", "walk_forward"),
)


def _group(*options: Decorator) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Date(click.ParamType[Any]):
    """A calendar date as YYYY-MM-DD."""

    name = "date"

    def convert(self, value: Any, param: Any, ctx: Any) -> dt.date:
        if isinstance(value, dt.date):
            return value
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date; write it as 2021-12-31", param, ctx)


class Bytes(click.ParamType[Any]):
    """A size such as 6GB or 512MiB, in bytes."""

    name = "size"
    UNITS: ClassVar = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9} | {
        f"{unit}I": 2 ** (10 * (power + 1)) for power, unit in enumerate("KMG")
    }

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().removesuffix("B")
        digits = text.rstrip("KMGI")
        try:
            return int(float(digits) * self.UNITS[text[len(digits) :]])
        except (KeyError, ValueError):
            self.fail(f"{value!r} is not a size; write it as 6GB or 512MiB", param, ctx)


workspace = _group(
    click.option(
        "--workspace",
        "-w",
        default="vnquant-workspace",
        envvar="VNQUANT_WORKSPACE",
        show_default=True,
        help="Directory of runs and deployed sets.",
    ),
)

prices = click.option(
    "--prices",
    type=click.Path(path_type=Path),
    envvar="VNQUANT_PRICES",
    help="Parquet or CSV file, or a directory of them. Default: embedded simulated prices.",
)

symbols = click.option(
    "--symbols", multiple=True, metavar="SYMBOL...", help="Tickers: --symbols FPT VCB HPG."
)

universe = _group(
    symbols,
    click.option(
        "--universe", type=click.Choice(["vn102", "all"]), help="A named list instead of --symbols."
    ),
    click.option(
        "--start", type=Date(), help="First session used. Default: ten years before the last."
    ),
    click.option("--end", type=Date(), help="Last session used."),
)

selection = _group(
    universe,
    click.option(
        "--validation-start", type=Date(), help="Default: 252 sessions before --test-start."
    ),
    click.option(
        "--test-start", type=Date(), help="Default: the last 504 sessions are the test part."
    ),
)

folds = _group(
    click.option(
        "--folds",
        "count",
        type=click.IntRange(1),
        default=4,
        show_default=True,
        help="How many, side by side up to the last session.",
    ),
    click.option(
        "--test-sessions",
        type=click.IntRange(1),
        default=252,
        show_default=True,
        help="Sessions that each fold is judged on.",
    ),
    click.option(
        "--cutoffs",
        type=Date(),
        multiple=True,
        metavar="DATE...",
        help="First test session of each fold, instead of --folds and --test-sessions.",
    ),
    click.option(
        "--validation-sessions",
        type=click.IntRange(1),
        default=252,
        show_default=True,
        help="Sessions before a cutoff that choose the best epoch.",
    ),
    click.option(
        "--train-sessions",
        type=click.IntRange(1),
        help="Train on this many sessions only (rolling). Default: all before (expanding).",
    ),
)

recipe = _group(
    click.option(
        "--recipe",
        type=click.Choice(["auto", "pooled", "per-symbol"]),
        default="auto",
        show_default=True,
        help="pooled: one model learns from all symbols which will do better (docs/forecasts.md); "
        "per-symbol: each learns from itself alone; auto: pooled from 20 symbols on.",
    ),
    click.option(
        "--lookback", type=click.IntRange(2, 512), help="Sessions that a model sees. [60]"
    ),
    click.option(
        "--half-life",
        type=click.FloatRange(0),
        help="Sessions after which what a window says counts half; 0: all alike. "
        "[pooled: 10; per-symbol: 0]",
    ),
    click.option(
        "--features",
        type=click.Choice(["v1", "v2"]),
        default="v1",
        show_default=True,
        help="50 features, or v2: ten more about the market (needs VNINDEX).",
    ),
    click.option(
        "--preset",
        type=click.Choice(["base", "small"]),
        default="base",
        show_default=True,
        help="Model sizes.",
    ),
    click.option("--epochs", type=click.IntRange(1), help="Epochs per model."),
    click.option("--batch-size", type=click.IntRange(1), help="Windows per step and model."),
    click.option(
        "--learning-rate", type=click.FloatRange(0, min_open=True), help="Peak rate of AdamW."
    ),
    click.option(
        "--patience",
        type=click.IntRange(0),
        help="Epochs without improvement before a symbol stops; 0: never.",
    ),
    click.option("--seed", type=click.IntRange(0), help="Seed of all random numbers."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        help="Computing precision.",
    ),
)

gate = _group(
    click.option(
        "--min-accuracy", type=click.FloatRange(0, 1), help="Gate: accuracy must be above. [0.52]"
    ),
    click.option(
        "--max-rmse",
        type=click.FloatRange(0, min_open=True),
        help="Gate: RMSE of one-session log returns must be below. [0.03]",
    ),
    click.option(
        "--min-sharpe",
        type=click.FloatRange(-100, 100),
        help="Gate: annual Sharpe ratio of the backtest must be above. [0.8]",
    ),
    click.option(
        "--max-drawdown",
        type=click.FloatRange(0, 1, min_open=True),
        help="Gate: drawdown of the backtest must be below. [0.1]",
    ),
    click.option(
        "--significance/--no-significance",
        "require_significance",
        default=None,
        help="Gate: accuracy must be distinguishably above the majority class. Default: it must.",
    ),
)

execution = _group(
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="CPU threads. Default: the usable cores."
    ),
    click.option(
        "--cores",
        type=click.Choice(["p", "e", "all"]),
        help="Kind of cores to bind to. Default: P cores where there are E cores too.",
    ),
    click.option(
        "--teams",
        type=click.IntRange(1),
        help="Processes that share training. Default: one for each GPU; on a CPU what "
        "a short trial finds fastest, kept for this machine (docs/cores.md).",
    ),
    click.option(
        "--ipex",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="intel-extension-for-pytorch; auto: only if it proves a gain.",
    ),
    click.option(
        "--stack-width",
        type=click.IntRange(1),
        help="Models trained at a time. Default: what memory allows.",
    ),
    click.option(
        "--compile/--no-compile",
        "compiled",
        default=None,
        help="Use torch.compile. Default: on CUDA only.",
    ),
    click.option(
        "--checkpoint-minutes",
        type=click.FloatRange(0),
        default=20.0,
        show_default=True,
        help="Time between checkpoints.",
    ),
    click.option(
        "--checkpoint-epochs",
        type=click.IntRange(1),
        help="Also save at every such epoch boundary.",
    ),
    click.option("--memory-limit", type=Bytes(), help="Host memory to stay within, e.g. 6GB."),
    click.option("--quiet", "-q", is_flag=True, help="No progress, only the result."),
)

folded = _group(workspace, prices, universe, folds, recipe, execution)
"""Everything about a walk-forward: its spec, and where and how to carry it out."""

force = _group(
    click.option("--force", is_flag=True, help="Deploy although the gate refuses; recorded."),
    click.option("--force-reason", metavar="TEXT", help="Why, for the registry's journal."),
)
