"""The whole job where there is nothing to find: ``python -m benchmarks.null_test [--prices FILE]``.

Prices are rebuilt from block-shuffled returns (`vnquant.market.shuffle`), written as a file, and
put through what `vnquant train` does: ingest, features, training, evaluation, backtest and the
default gate. Counted is what passes; under 5 % should. So that a judge who refuses everything does
not pass the test, ``--controls`` adds markets in which returns repeat in part.

Works on a CPU or a GPU; the numbers of shares, shuffles and epochs are arguments.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.record import REPORTS, command_line, provenance, publish, table_of
from vnquant.accelerators.cuda import visible
from vnquant.accelerators.profile import usable_cores
from vnquant.cli_plan import HISTORY_YEARS, plan
from vnquant.errors import PartialFailure
from vnquant.evaluation.calibration import wilson
from vnquant.evaluation.gates import decide
from vnquant.events import Events
from vnquant.market.index import index_levels
from vnquant.market.shuffle import shuffled
from vnquant.market.sources import open_source
from vnquant.market.universe import VN102
from vnquant.spec import GateSpec, ModelSpec, RunSpec
from vnquant.stages import run_stages
from vnquant.stages.context import Context, Options
from vnquant.workspace import Workspace, read_json

BAR = 0.05
"""Share of those judged that may pass where there is nothing to find."""
CARRY = 0.7
"""Correlation of a control's returns with those of the session before."""
BARE = GateSpec(require_significance=False)
"""The gate without proof, to show what the proof refuses."""


@dataclass(frozen=True)
class Market:
    """Which shuffle of the prices: the arguments of `vnquant.market.shuffle.shuffled`."""

    block: int
    seed: int
    carry: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What is trained on each of them; the rest is as `vnquant train` has it by default."""

    preset: str = "small"
    epochs: int = 5
    device: str = "auto"
    threads: int | None = None
    """Of each market; None: all cores."""
    lookback: int | None = None
    """None: as `vnquant train` has it."""
    model: ModelSpec | None = None
    """Instead of the preset's, for tests."""


def trial(
    raw: pd.DataFrame, levels: pd.DataFrame, market: Market, recipe: Recipe
) -> dict[str, Any]:
    """Train, judge and put before the gate one shuffled market, in a workspace of its own.

    Returns:
        ``set``: the gate's decision, backtest included; ``forecasts``: without the backtest;
        ``shares``: for each share judged whether its verdict is a pass (``verdict``), whether it
        would pass the gate on its own forecasts (``alone``), and without proof (``bare``).
    """
    with tempfile.TemporaryDirectory(prefix="null-test-") as folder:
        prices = Path(folder) / "shuffled.parquet"
        bars = shuffled(raw, levels, block=market.block, seed=market.seed, carry=market.carry)
        bars.to_parquet(prices, index=False)
        run = Workspace(Path(folder) / "workspace").create().run(_spec(prices, market, recipe))
        run.prepare()
        options = Options(prices=prices, device=recipe.device, threads=recipe.threads)  # type: ignore[arg-type]
        ctx = Context(run.workspace, run, Events(run.path / "events.jsonl"), options)
        try:
            run_stages(ctx, ["deploy"])
        except PartialFailure as some:  # a share with too short a history
            print(some)
        verdict = read_json(ctx.stage("evaluate") / "verdict.json")
        gate = ctx.marker("deploy")["gate"]
    passed = {v["symbol"]: v["passed"] for v in verdict["verdicts"]}
    shares = {
        symbol: {
            "verdict": passed[symbol],
            "alone": decide(figures, GateSpec()).passed,
            "bare": decide(figures, BARE).passed,
        }
        for symbol, figures in verdict["by_symbol"].items()
    }
    pooled = verdict["comparison"][0]
    return {
        "block": market.block,
        "seed": market.seed,
        "carry": market.carry,
        "set": gate["passed"],
        "forecasts": verdict["gate"]["passed"],
        "reason": gate["reason"],
        "shares": shares,
        "accuracy": pooled["accuracy"],
        "majority": pooled["majority"],
        "rank_ic": pooled["rank_ic"],
    }


def _spec(prices: Path, market: Market, recipe: Recipe) -> RunSpec:
    job = plan(
        prices=prices,
        symbols=(),
        universe="all",
        start=None,
        end=None,
        validation_start=None,
        test_start=None,
        preset=recipe.preset,
        epochs=recipe.epochs,
        seed=market.seed,
        lookback=recipe.lookback,
    )
    if recipe.model is None:
        return job.spec
    return job.spec.model_copy(update={"model": recipe.model})


def counted(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each kind of market: how many of those judged passed, with Wilson's 95 % interval.

    The shares of one market share its days, so the interval of a share of shares is too narrow.
    """
    rows = []
    for kind in dict.fromkeys((t["carry"], t["block"]) for t in trials):
        of = [t for t in trials if (t["carry"], t["block"]) == kind]
        shares = [s for t in of for s in t["shares"].values()]
        judged = {
            "sets, the whole gate": [t["set"] for t in of],
            "sets, forecasts alone": [t["forecasts"] for t in of],
            "shares, by their verdict": [s["verdict"] for s in shares],
            "shares, each before the gate alone": [s["alone"] for s in shares],
            "the same without proof": [s["bare"] for s in shares],
        }
        for name, passes in judged.items():
            share = sum(passes) / len(passes)
            low, high = wilson(share, len(passes))
            rows.append(
                {
                    "planted": f"{kind[0]:g}",
                    "block": kind[1],
                    "judged": name,
                    "of": len(passes),
                    "passed": sum(passes),
                    "share": f"{share:.1%}",
                    "95 % interval": f"{low:.1%} to {high:.1%}",
                }
            )
    return rows


def markets(blocks: Sequence[int], shuffles: int, controls: int) -> Iterator[Market]:
    """All blocks take a turn with a seed before the next seed; the controls are seeds of their own.

    Controls come early, so that a run that is cut short has them.
    """
    for seed in range(shuffles):
        yield from (Market(block, seed) for block in blocks)
        if seed < controls:
            yield replace(Market(blocks[0], shuffles + seed), carry=CARRY)


def carried_out(
    raw: pd.DataFrame,
    levels: pd.DataFrame,
    wanted: Iterable[Market],
    recipe: Recipe,
    processes: int,
) -> Iterator[dict[str, Any]]:
    """The trials as they end; several processes share the GPUs that there are."""
    if processes == 1:
        yield from (trial(raw, levels, market, recipe) for market in wanted)
        return
    # Spawned: a forked process could not open a GPU.
    context = multiprocessing.get_context("spawn")
    begun = context.Value("i", 0)
    with ProcessPoolExecutor(processes, context, on_one_gpu, (begun, visible())) as pool:
        ahead = [pool.submit(trial, raw, levels, market, recipe) for market in wanted]
        try:
            yield from (done.result() for done in as_completed(ahead))
        finally:
            # After a failure, nobody waits for an hour of other markets to be told of it.
            pool.shutdown(wait=False, cancel_futures=True)


def on_one_gpu(begun: Any, gpus: Sequence[str]) -> None:
    """Give a new process its GPU for life; they take turns.

    torch keeps the stream on which it captures graphs: a process that went on to another GPU
    captured nothing there, and trained nothing.
    """
    with begun.get_lock():
        turn, begun.value = begun.value, begun.value + 1
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[turn % len(gpus)]


def longest(raw: pd.DataFrame, symbols: int) -> pd.DataFrame:
    """The last ten years of the shares that have most bars in them.

    A spec begins there by default, and older returns come from days with other bands.
    """
    raw = raw[raw["date"] > raw["date"].max() - pd.DateOffset(years=HISTORY_YEARS)]
    most = raw["symbol"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return raw[raw["symbol"].isin(most.index[:symbols])].reset_index(drop=True)


def body(trials: Sequence[dict[str, Any]], recipe: Recipe, symbols: int, real: bool) -> list[str]:
    """The report below its head."""
    each = [
        {
            "planted": f"{t['carry']:g}",
            "block": t["block"],
            "seed": t["seed"],
            "shares": len(t["shares"]),
            "accuracy": f"{t['accuracy']:.2%}",
            "majority": f"{t['majority']:.2%}",
            "RankIC": "-" if t["rank_ic"] is None else f"{t['rank_ic']:+.4f}",
            "gate": t["reason"],
        }
        for t in trials
    ]
    shorter = "" if recipe.lookback is None else f" {recipe.lookback} sessions,"
    return [
        f"{symbols} shares, {'real' if real else 'simulated'} returns in another order, preset"
        f" `{recipe.preset}`, {recipe.epochs} epochs,{shorter} everything else as `vnquant train`"
        f" has it by default. Under {BAR:.0%} should pass where nothing is planted. The shares of a"
        " market share its days, so the intervals of shares are too narrow.",
        "",
        table_of(counted(trials)),
        "",
        table_of(each),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prices", type=Path, help="a real price file; default: simulated prices")
    parser.add_argument("--symbols", type=int, default=len(VN102), help="of vn102, the longest")
    parser.add_argument("--shuffles", type=int, default=20, help="shuffled markets a block length")
    parser.add_argument(
        "--blocks", type=int, nargs="+", default=[1, 10], help="sessions in a block"
    )
    parser.add_argument("--controls", type=int, default=1, help="markets with something to find")
    parser.add_argument("--preset", default=Recipe.preset)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--lookback", type=int, help="sessions; fewer are quicker on a CPU")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--processes", type=int, default=1, help="markets at a time")
    parser.add_argument("--output", type=Path, default=REPORTS)
    args = parser.parse_args()
    source = open_source("folder" if args.prices else "synthetic", args.prices)
    raw = longest(source.load(sorted(VN102), start=None, end=None), args.symbols)
    levels = index_levels(args.prices)
    threads = max(1, usable_cores() // args.processes)
    recipe = Recipe(args.preset, args.epochs, args.device, threads, args.lookback)
    import torch

    cuda = args.device != "cpu" and torch.cuda.is_available()
    result = provenance("cuda" if cuda else "cpu")
    result["command"] = command_line("benchmarks.null_test", args.prices)
    trials = result["trials"] = []
    every = markets(args.blocks, args.shuffles, args.controls)
    for found in carried_out(raw, levels, every, recipe, args.processes):
        trials.append(found)
        # After every market: a run that is cut short leaves the report of what it did.
        page = body(trials, recipe, raw["symbol"].nunique(), args.prices is not None)
        publish(args.output, "null-test", result, page)


if __name__ == "__main__":
    main()
