"""What the commands do, between parsing and the library. Heavy imports live in the functions."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnquant.cli_folds import FOLDED, plan_folds
from vnquant.cli_plan import PLANNED, plan, stages_of
from vnquant.cli_progress import open_view
from vnquant.errors import DataError, UsageError
from vnquant.events import Events
from vnquant.spec import load_spec
from vnquant.workspace import Run, Workspace

if TYPE_CHECKING:
    import pandas as pd

    from vnquant.stages.context import Context, Options


def train(
    workspace: Workspace,
    *,
    quiet: bool,
    prices: Path | None,
    validate_only: bool,
    optimize_inference: bool,
    **given: Any,
) -> None:
    """Build the spec from the prices and run the stages."""
    job = plan(prices=prices, **{k: given.pop(k) for k in list(given) if k in PLANNED})
    stages = stages_of(optimize_inference=optimize_inference)
    options = _options(prices, given)
    run = workspace.create().run(job.spec)
    if validate_only:
        stages = ["ingest", "features"]
        if run.stage("train").done() is not None:
            stages += ["train", "evaluate"]
    _execute(workspace, run, stages, options, quiet=quiet, raw=job.raw)
    if validate_only and "evaluate" not in stages:
        click.echo(
            f"The prices and the spec are sound (run {job.spec.run_id}). "
            "This run has no trained models to judge yet; run without --validate-only to train."
        )
    else:
        _show_verdict(run)


def walk_forward(workspace: Workspace, *, quiet: bool, prices: Path | None, **given: Any) -> None:
    """Build the spec with its folds from the prices, and run the one stage they are for."""
    job = plan_folds(prices=prices, **{k: given.pop(k) for k in list(given) if k in FOLDED})
    run = workspace.create().run(job.spec)
    _execute(workspace, run, ["walk_forward"], _options(prices, given), quiet=quiet, raw=job.raw)
    _show_walk_forward(run)


def _show_walk_forward(run: Run) -> None:
    click.echo((run.stage("walk_forward") / "verdict.md").read_text(encoding="utf-8"))
    click.echo(f"Run {run.spec.run_id} in {run.path}.")


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
    stages: Sequence[str],
    spec_path: Path,
    *,
    quiet: bool,
    prices: Path | None,
    **given: Any,
) -> None:
    """Run stages of a spec, or all of them; ends with the verdict if there is one."""
    from vnquant.stages import ALL, STAGES

    spec = load_spec(spec_path)
    target = workspace.create().run(spec)
    chosen = [s for s in STAGES if s in stages or ("all" in stages and s in ALL)]
    _execute(workspace, target, chosen, _options(prices, given), quiet=quiet)
    if "evaluate" in chosen and target.stage("evaluate").done() is not None:
        _show_verdict(target)
    if "walk_forward" in chosen:
        _show_walk_forward(target)
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
    report = run.stage("report") / "report.html"
    if report.exists():
        click.echo(f"Report: {report}")
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


def monitor(
    workspace: Workspace,
    *,
    prices: Path | None,
    since: str | None,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Judge what is deployed on newer prices, and say what has drifted."""
    from vnquant.inference import monitor as watching
    from vnquant.inference.deployed import open_deployed, open_run

    if prices is None:
        raise UsageError(
            "there is nothing newer to judge by", where="--prices", fix="give a newer price file"
        )
    ready = open_run(workspace, run_id) if run_id else open_deployed(workspace)
    begin = since or ready.last_session
    if begin is None:
        raise UsageError(
            "this set does not say which session it knew last",
            where=ready.title,
            fix="name the day with --since",
        )
    try:
        day = dt.date.fromisoformat(begin)
    except ValueError as error:
        raise UsageError(str(error), where="--since", fix="give a date like 2024-01-31") from error
    found = watching.watch(ready, prices, day)
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        click.echo(f"{ready.title}\n\n{watching.to_text(found)}", nl=False)


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


def registry_prune(workspace: Workspace, keep: int) -> None:
    """Delete all but the current set and ``keep`` others."""
    from vnquant.registry import Registry

    gone = Registry(workspace.registry).prune(keep) if workspace.registry.is_dir() else []
    click.echo(f"Deleted: {', '.join(gone)}." if gone else "Nothing to delete.")
