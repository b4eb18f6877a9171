"""The ``vnquant`` command: parse, call a stage, map errors to exit codes.

Nothing heavy is imported at the top: ``vnquant --help`` must answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnquant import __version__
from vnquant import cli_options as opt
from vnquant.argv import normalise
from vnquant.cli_prices import prices
from vnquant.cli_study import study
from vnquant.cli_weekly import weekly
from vnquant.errors import BUG, INTERRUPTED, VnquantError

if TYPE_CHECKING:
    from vnquant.workspace import Workspace


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vnquant")
def cli() -> None:
    """Train, judge, deploy and use a fleet of small forecasters of Vietnamese shares."""


@cli.command()
@opt.workspace
@opt.prices
@opt.selection
@opt.recipe
@opt.gate
@opt.execution
@click.option(
    "--validate-only",
    is_flag=True,
    help="Train nothing: check the prices and judge models that exist.",
)
@click.option(
    "--optimize-inference", is_flag=True, help="Also compare eager, compiled and int8 inference."
)
@opt.force
def train(workspace: str, quiet: bool, **given: Any) -> None:
    """Take prices to judged, deployed forecasters.

    Runs the stages ingest, features, train, evaluate, backtest, deploy and forecast.
    """
    from vnquant import cli_actions

    cli_actions.train(_workspace(workspace), quiet=quiet, **given)


@cli.command("walk-forward")
@opt.folded
def walk_forward(workspace: str, quiet: bool, **given: Any) -> None:
    """Train and judge on fold after fold of the history; nothing is deployed.

    All folds train together. The result is a verdict on every fold and on all of them pooled.
    """
    from vnquant import cli_actions

    cli_actions.walk_forward(_workspace(workspace), quiet=quiet, **given)


@cli.command()
@click.argument(
    "stages",
    metavar="STAGE...",
    nargs=-1,
    required=True,
    type=click.Choice([*opt.STAGE_NAMES, "all"]),
)
@click.option(
    "--spec", "spec_path", required=True, type=click.Path(path_type=Path), help="Run spec (JSON)."
)
@opt.workspace
@opt.prices
@opt.execution
@opt.force
def run(
    stages: tuple[str, ...], spec_path: Path, workspace: str, quiet: bool, **given: Any
) -> None:
    """Run one STAGE of a spec or several, after those they need that have not finished.

    STAGE is ingest, features, train, evaluate, backtest, optimize, deploy, forecast, report or
    walk_forward; all: every one but the last.
    """
    from vnquant import cli_actions

    cli_actions.run(_workspace(workspace), stages, spec_path, quiet=quiet, **given)


@cli.command()
@opt.workspace
@opt.prices
@opt.symbols
@click.option(
    "--run", "run_id", help="Forecast with this run's models instead of the deployed set."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def forecast(workspace: str, **given: Any) -> None:
    """Forecast the next five sessions with the deployed set."""
    from vnquant import cli_actions

    cli_actions.forecast(_workspace(workspace), **given)


@cli.command()
@opt.workspace
@opt.prices
@click.option(
    "--since",
    metavar="DATE",
    help="Judge forecasts made after this date. Default: the last session the set was judged on.",
)
@click.option("--run", "run_id", help="Watch this run's models instead of the deployed set.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def monitor(workspace: str, **given: Any) -> None:
    """Judge the deployed set on the sessions since, week by week, and look for drift."""
    from vnquant import cli_actions

    cli_actions.monitor(_workspace(workspace), **given)


@cli.group()
def registry() -> None:
    """List, verify and roll back deployed sets."""


@registry.command("list")
@opt.workspace
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def registry_list(workspace: str, as_json: bool) -> None:
    """List deployed sets, newest first."""
    from vnquant import cli_actions

    cli_actions.registry_list(_workspace(workspace), as_json)


@registry.command("verify")
@opt.workspace
@click.argument("set_id", required=False)
def registry_verify(workspace: str, set_id: str | None) -> None:
    """Recompute every checksum of one set, or of all."""
    from vnquant import cli_actions

    cli_actions.registry_verify(_workspace(workspace), set_id)


@registry.command("rollback")
@opt.workspace
@click.option("--to", "set_id", help="The set to return to; default: the one before the current.")
def registry_rollback(workspace: str, set_id: str | None) -> None:
    """Make an earlier set current again, byte for byte."""
    from vnquant import cli_actions

    cli_actions.registry_rollback(_workspace(workspace), set_id)


@registry.command("prune")
@opt.workspace
@click.option(
    "--keep",
    type=click.IntRange(0),
    required=True,
    help="How many sets to keep beside the current one.",
)
def registry_prune(workspace: str, keep: int) -> None:
    """Delete old sets for good, the first ones a rollback would return to last."""
    from vnquant import cli_actions

    cli_actions.registry_prune(_workspace(workspace), keep)


cli.add_command(prices)
cli.add_command(study)
cli.add_command(weekly)


def _workspace(path: str) -> Workspace:
    from vnquant.workspace import Workspace

    return Workspace(path)


def invoke(command: Callable[[], object]) -> int:
    """Call, and turn what happened into an exit code and one sentence on stderr."""
    try:
        command()
    except VnquantError as error:
        click.echo(f"vnquant: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("vnquant: stopped; run the same command again to continue.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has left; that is not a failure.
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        click.echo("vnquant: this is a bug; please report it with the lines above.", err=True)
        return BUG
    return 0


def spin_briefly() -> None:
    """Let idle OpenMP threads sleep sooner than by default.

    Read by libgomp as torch loads it. Beside another busy process the default makes every thread
    wait for one that has no core, which made a step up to eight times as long; sleeping at once
    costs up to a quarter on a quiet machine. This is between the two (benchmarks/NOTES.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def main(args: Sequence[str] | None = None, group: click.Group = cli) -> None:
    """Parse and execute; ``group`` is `cli`, or the host's larger set of commands."""
    spin_briefly()
    # A notebook's kernel names a backend of its own for matplotlib, which may not exist here.
    os.environ.pop("MPLBACKEND", None)
    words = normalise(sys.argv[1:] if args is None else args)

    def command() -> object:
        result = group.main(words, prog_name="vnquant", standalone_mode=False)
        if isinstance(result, int) and result:
            raise SystemExit(result)
        return result

    sys.exit(invoke(command))
