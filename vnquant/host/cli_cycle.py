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
    click.Option(
        ["--notify"],
        type=click.Path(path_type=Path),
        envvar="VNQUANT_NOTIFY_FILE",
        help="With --mode: a file of addresses to tell how it ended, one a line. Beside it: those "
        "in the variable VNQUANT_NOTIFY.",
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


@click.command()
@click.option(
    "--notify",
    "file",
    type=click.Path(path_type=Path),
    envvar="VNQUANT_NOTIFY_FILE",
    help="A file of addresses, one a line.",
)
def notify(file: Path | None) -> int:
    """Send a test notice to every address of a file and of VNQUANT_NOTIFY.

    Exit code 5 if one of them was not reached.
    """
    from vnquant.errors import OK, RETRY, UsageError
    from vnquant.host import notices

    urls = notices.addresses(file)
    if not urls:
        raise UsageError("no address is given", where="--notify", fix="see docs/weekly.md")
    said = notices.send(urls, "vnquant: a test", "Notices arrive here.", good=True)
    click.echo("\n".join(said) or f"Sent to {len(urls)} addresses.")
    return RETRY if said else OK
