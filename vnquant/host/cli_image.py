"""``vnquant image``: build, verify, list, sbom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

# Repeated because the module of the builds is not loaded for --help; a test compares them.
TRAINERS = ("cpu", "cpu-pypi", "cpu-wheels", "cuda")
VARIANTS = (*TRAINERS, "publisher", *(f"{trainer}-jupyter" for trainer in TRAINERS))

Command = Callable[..., Any]


@click.group()
def image() -> None:
    """Build container images reproducibly, and prove it."""


def _building(command: Command) -> Command:
    for option in (
        click.option(
            "--wheels",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder with the torch wheel of cpu-wheels. Default: pip's find-links.",
        ),
        click.option(
            "--network",
            type=click.Choice(["default", "host"]),
            default="default",
            envvar="VNQUANT_BUILD_NETWORK",
            show_default=True,
            help="Network of build steps.",
        ),
        click.option(
            "--base-image",
            envvar="BASE_IMAGE",
            help="Debian 12 with Python 3.11. Default: python:3.11-slim-bookworm, by digest.",
        ),
        click.argument("variant", type=click.Choice(VARIANTS)),
    ):
        command = option(command)
    return command


@image.command()
@_building
@click.option("--uid", type=click.IntRange(1), default=1000, show_default=True, help="User id.")
@click.option("--gid", type=click.IntRange(1), default=1000, show_default=True, help="Group id.")
@click.option("--no-cache", is_flag=True, help="Repeat every step.")
def build(variant: str, **given: Any) -> None:
    """Build the image VARIANT from the checked-out commit."""
    from vnquant.host import image_build, images

    record = images.build(variant, image_build.Options(**given), _say)
    click.echo(f"image     {' '.join(record['tags'])}")
    click.echo(f"digest    {record['manifest_digest']}")
    click.echo(f"size      {record['bytes'] / 1e6:,.0f} MB compressed")
    click.echo(f"seconds   {record['seconds']:.0f}")


@image.command()
@_building
def verify(variant: str, **given: Any) -> None:
    """Build the commit of the local image VARIANT again and compare the digests."""
    from vnquant.host import image_build, images

    found = images.verify(variant, image_build.Options(**given), _say)
    if found:
        raise images.unequal(variant, found)
    click.echo(f"The same digest: {images.inspect(f'vnquant:{variant}').manifest_digest}")


@image.command("list")
def list_images() -> None:
    """List this machine's images of vnquant."""
    from vnquant.host import images

    for tag, info, size in images.local():
        click.echo(
            f"{tag:<28} {info.manifest_digest[7:19]}  {info.commit[:12] or '-':<12}"
            f"  {info.created or '-':<20}  {size / 1e6:>7,.0f} MB"
        )


@image.command()
@click.argument("variant", type=click.Choice(VARIANTS))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="File. Default: the terminal."
)
def sbom(variant: str, output: Path | None) -> None:
    """Write the bill of materials (CycloneDX JSON) of the local image VARIANT."""
    from vnquant.host.sbom import sbom as bill

    text = bill(variant)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _say(text: str) -> None:
    click.echo(text, err=True)
