"""``vnquant train --mode`` and ``vnquant jobs``: whole cycles."""

from __future__ import annotations

from pathlib import Path

import click

from vnquant import cli_options as opt

CYCLE = (
    click.Option(
        ["--mode"],
        type=click.Choice(["local", "colab", "hybrid"]),
        help="A whole cycle in four phases, kept as a job: prepare here, train there, judge here, "
        "deploy here. local: train here too; colab: judge there too.",
    ),
    click.Option(
        ["--from-phase"],
        type=click.IntRange(1, 4),
        default=1,
        help="With --mode: begin with 1 prepare, 2 train, 3 judge or 4 deploy.",
    ),
    click.Option(
        ["--fallback"],
        type=click.Choice(["local", "cpu", "cuda"]),
        help="With --mode: train there if the first target cannot be had.",
    ),
)


@click.command()
@opt.workspace
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def jobs(workspace: str, as_json: bool) -> None:
    """List the cycles of the workspace, newest first."""
    import json

    from vnquant.host.jobs import Jobs

    found = Jobs(Path(workspace).expanduser().resolve()).all()
    if as_json:
        click.echo(json.dumps([j.model_dump(mode="json") for j in found], indent=2))
        return
    if not found:
        click.echo("No jobs yet.")
    for job in found:
        accuracy = job.result.get("accuracy")
        figures = [
            f"{len(job.symbols)} symbols",
            f"phase {job.phase}",
            f"{sum(job.attempts.values())} attempts",
            "not judged" if accuracy is None else f"accuracy {accuracy:.2%}",
            *(f"{value:.2f} {name}" for name, value in sorted(job.cost.items())),
        ]
        click.echo(
            f"{job.job}  {job.mode:<6}  {job.state:<11}  run {job.run}  {', '.join(figures)}"
        )
