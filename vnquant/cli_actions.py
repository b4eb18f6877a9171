"""What the commands do, between parsing and the library. Heavy imports live in the functions."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnquant.cli_progress import open_view
from vnquant.errors import DataError, UsageError
from vnquant.events import Events
from vnquant.spec import PRESETS, DataSpec, RunSpec, TrainingSpec, WindowSpec, load_spec
from vnquant.workspace import Run, Workspace

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from vnquant.stages.context import Context, Options

HISTORY_YEARS = 10
TEST_SESSIONS = 504
VALIDATION_SESSIONS = 252
LEAST_SESSIONS = 400


def train(
    workspace: Workspace,
    *,
    quiet: bool,
    prices: Path | None,
    symbols: Sequence[str],
    universe: str | None,
    validate_only: bool,
    optimize_inference: bool,
    **given: Any,
) -> None:
    """Build the spec from the prices and run the stages."""
    from vnquant.market.sources import open_source, snapshot_hash
    from vnquant.market.universe import resolve

    source = open_source("folder" if prices else "synthetic", prices)
    names = resolve(symbols, universe, source.known_symbols())
    raw = source.load(names, start=given.pop("start"), end=given.pop("end"))
    raw, windows = _default_dates(raw, given.pop("validation_start"), given.pop("test_start"))
    data = DataSpec(
        source="folder" if prices else "synthetic",
        snapshot=snapshot_hash(raw),
        start=raw["date"].min().date(),
        end=raw["date"].max().date(),
    )
    training = _training(given)
    model = PRESETS[given.pop("preset")]
    spec = RunSpec(symbols=tuple(names), data=data, windows=windows, model=model, training=training)
    stages = ["ingest", "features", "train", "evaluate", "deploy", "forecast"]
    if optimize_inference:
        stages.insert(stages.index("deploy"), "optimize")
    options = _options(prices, given)
    run = workspace.create().run(spec)
    if validate_only:
        stages = ["ingest", "features"]
        if run.stage("train").done() is not None:
            stages += ["train", "evaluate"]
    _execute(workspace, run, stages, options, quiet=quiet, raw=raw)
    if validate_only and "evaluate" not in stages:
        click.echo(
            f"The prices and the spec are sound (run {spec.run_id}). "
            "This run has no trained models to judge yet; run without --validate-only to train."
        )
    else:
        _show_verdict(run)


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


def _training(given: dict[str, Any]) -> TrainingSpec:
    keys = ("epochs", "batch_size", "learning_rate", "patience", "seed", "precision")
    chosen = {k: v for k in keys if (v := given.pop(k)) is not None}
    if chosen.get("patience") == 0:
        chosen["patience"] = None
    return TrainingSpec(**chosen)


def _options(prices: Path | None, given: dict[str, Any]) -> Options:
    from vnquant.stages.context import Options

    return Options(prices=prices, **given)


def _execute(
    workspace: Workspace,
    run: Run,
    stages: Sequence[str],
    options: Options,
    *,
    quiet: bool,
    raw: pd.DataFrame | None = None,
) -> Context:
    from vnquant.stages import run_stages
    from vnquant.stages.context import Context

    run.prepare()
    with run.lock(), open_view(quiet=quiet) as view:
        context = Context(workspace, run, Events(run.path / "events.jsonl", view), options, raw)
        run_stages(context, stages)
    return context


def run(
    workspace: Workspace,
    stage: str,
    spec_path: Path,
    *,
    quiet: bool,
    prices: Path | None,
    **given: Any,
) -> None:
    """Run one stage of a spec, or all of them."""
    from vnquant.stages import ALL

    spec = load_spec(spec_path)
    target = workspace.create().run(spec)
    stages = list(ALL) if stage == "all" else [stage]
    _execute(workspace, target, stages, _options(prices, given), quiet=quiet)
    click.echo(str(target.path))


def _show_verdict(run: Run) -> None:
    """The verdict, what became of the deployment, and the forecasts."""
    from vnquant.workspace import read_json

    path = run.stage("evaluate") / "verdict.md"
    click.echo(path.read_text(encoding="utf-8"))
    if (deployed := run.stage("deploy").done()) is not None:
        if deployed["deployed"]:
            click.echo(f"Deployed as set {deployed['set']}.\n")
        else:
            click.echo(
                f"Not deployed: {deployed['gate']['reason']} "
                "What was deployed before stays. Repeat with --force to deploy all the same.\n"
            )
    text = run.stage("forecast") / "forecast.txt"
    if text.exists():
        click.echo(text.read_text(encoding="utf-8"))
    manifest = read_json(run.path / "manifest.json") or {}
    seconds = sum(s["seconds"] for s in manifest.get("stages", {}).values())
    click.echo(f"Run {run.spec.run_id} in {run.path} ({seconds:.0f} s of work).")


def forecast(
    workspace: Workspace,
    *,
    prices: Path | None,
    symbols: Sequence[str],
    run_id: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Forecast with the deployed set, or with a run's own models."""
    from vnquant.inference import forecast as fc
    from vnquant.inference.deployed import open_deployed, open_run

    if as_json and as_csv:
        raise UsageError("both were given", where="--json and --csv", fix="give one of the two")
    ready = open_run(workspace, run_id) if run_id else open_deployed(workspace)
    table, missing = ready.forecast(list(symbols), prices)
    if as_json:
        click.echo(fc.to_json(table), nl=False)
    elif as_csv:
        click.echo(fc.to_csv(table), nl=False)
    else:
        click.echo(f"{ready.title}\n")
        click.echo(fc.to_text(table), nl=False)
    for symbol, reason in missing.items():
        click.echo(f"{symbol}: no forecast, {reason}", err=True)


def registry_list(workspace: Workspace, as_json: bool) -> None:
    """List deployed sets."""
    from vnquant.registry import Registry

    sets = Registry(workspace.registry).sets()
    if as_json:
        rows = [{"set": s.set_id, "current": s.current, **s.meta} for s in sets]
        click.echo(json.dumps(rows, indent=2))
        return
    if not sets:
        click.echo("Nothing has been deployed yet.")
    for s in sets:
        mark = "*" if s.current else " "
        forced = ", forced" if s.meta.get("forced") else ""
        count = len(s.meta.get("symbols", ()))
        click.echo(f"{mark} {s.set_id}  run {s.meta.get('run_id', '?')}  {count} symbols{forced}")


def registry_verify(workspace: Workspace, set_id: str | None) -> None:
    """Verify checksums; problems end with exit code 3."""
    from vnquant.registry import Registry

    registry = Registry(workspace.registry)
    problems = registry.verify(set_id)
    if problems:
        raise DataError(
            "; ".join(problems), where=str(workspace.registry), fix="roll back or deploy again"
        )
    count = 1 if set_id else len(registry.sets())
    click.echo(f"{count} set{'' if count == 1 else 's'} verified: every checksum matches.")


def registry_rollback(workspace: Workspace, set_id: str | None) -> None:
    """Return to an earlier set."""
    from vnquant.registry import Registry

    click.echo(f"Current is now {Registry(workspace.registry).rollback(set_id)}.")
