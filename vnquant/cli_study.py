"""``vnquant study``: list those that there are, or carry one out."""

from __future__ import annotations

import base64
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnquant import cli_options as opt

if TYPE_CHECKING:
    from vnquant.studies.definition import Study
    from vnquant.workspace import Workspace


@click.command()
@click.argument("name", required=False)
@opt.folded
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Carry out trials here one by one, or on a Ray cluster.",
)
@click.option(
    "--ray-address", metavar="HOST:PORT", help="A running cluster. Default: a new one here."
)
@click.option(
    "--trials-per-gpu",
    "per_gpu",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With Ray: trials that share a GPU.",
)
def study(name: str | None, workspace: str, quiet: bool, **given: Any) -> None:
    """Answer a question with walk-forwards: NAME is a shipped study or a JSON file.

    Without NAME: the studies that there are. The other words make the base spec, as for
    walk-forward; each trial is a run that differs from it. The same command goes on where a killed
    one stood.
    """
    from vnquant.studies.definition import load, shipped
    from vnquant.workspace import Workspace

    if name is None:
        for known in shipped().values():
            searched = known.search.trials if known.search else 0
            trials = len(known.variants) + known.repeats + searched
            click.echo(f"{known.name:<20}{trials:>3} trials  {known.question}")
        return
    asked = load(name)
    place = Workspace(workspace).create()
    click.echo(_carried_out(asked, place, quiet=quiet, **given), nl=False)


def _carried_out(
    asked: Study,
    place: Workspace,
    *,
    quiet: bool,
    engine: str,
    ray_address: str | None,
    per_gpu: int,
    **given: Any,
) -> str:
    """Carry out what is missing, and return the result as Markdown."""
    from vnquant.cli_folds import FOLDED, plan_folds
    from vnquant.cli_progress import open_view
    from vnquant.stages.context import Options
    from vnquant.studies import conduct, engines, trials
    from vnquant.workspace import write_json

    prices: Path | None = given.pop("prices")
    job = plan_folds(prices=prices, **{k: given.pop(k) for k in list(given) if k in FOLDED})
    base, options = job.spec, Options(prices=prices and prices.resolve(), **given)
    folder = trials.folder_of(place, asked, base)
    write_json(folder / "study.json", {"study": asked.model_dump(mode="json"),
                                       "base": base.model_dump(mode="json")})  # fmt: skip

    def told(trial: trials.Trial) -> None:
        click.echo(f"Trial {trial.name} (run {trial.spec.run_id}).", err=True)

    with contextlib.ExitStack() as stack:
        work: engines.Engine
        if engine == "ray":
            work = engines.Ray(folder, place, options, ray_address, told, per_gpu)
            stack.callback(work.close)
        else:
            view = stack.enter_context(open_view(quiet=quiet))
            work = engines.Local(
                folder, place, options, base=base, raw=job.raw, listener=view, told=told
            )
        found = conduct.carry_out(asked, base, folder, place, work)
    return _written(folder, {**found, "base_digest": base.digest})


def _written(folder: Path, found: dict[str, Any]) -> str:
    """Write result.json, result.svg and result.md, the last of which is returned."""
    from vnquant.studies import page
    from vnquant.workspace import write_bytes, write_json

    found = {**found, "command": " ".join(["vnquant", *sys.argv[1:]])}
    write_json(folder / "result.json", found)
    drawn = page.plot(found).source.partition(",")[2]
    write_bytes(folder / "result.svg", base64.b64decode(drawn))
    text = page.to_markdown(found)
    write_bytes(folder / "result.md", text.encode())
    return f"{text}\nKept in {folder}.\n"
