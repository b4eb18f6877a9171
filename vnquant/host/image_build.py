"""One build: the docker CLI's command line, and the archive that it makes."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vnquant import __version__
from vnquant.errors import RetryableError, UsageError
from vnquant.host import image_context as context
from vnquant.host.image_archive import Archive, read_archive
from vnquant.host.process import redacted, run
from vnquant.spec import SCHEMA_VERSION

NAME = "vnquant"
TITLES = {
    "cpu": "vnquant, training on the CPU",
    "cuda": "vnquant, training on an NVIDIA GPU",
    "publisher": "vnquant, publishing to a remote",
    "cpu-jupyter": "vnquant, a Colab local runtime on the CPU",
    "cuda-jupyter": "vnquant, a Colab local runtime on an NVIDIA GPU",
}
# Plain variants differ in the lock; those that begin alike are one image with torch from another
# place. Any that trains can have Jupyter on top, with a lock of its own.
TRAINERS = ("cpu", "cpu-pypi", "cpu-wheels", "cuda")
PLAIN = (*TRAINERS, "publisher")
JUPYTER = "-jupyter"
VARIANTS = (*PLAIN, *(f"{trainer}{JUPYTER}" for trainer in TRAINERS))
# The part of a failed build's output that says why.
LAST_LINES = 25


@dataclass(frozen=True)
class Options:
    """How to build: everything but the variant.

    Args:
        base_image: None: the one that the Dockerfile pins by digest.
        network: BuildKit's network mode of build steps, ``default`` or ``host``.
        wheels: folder with wheels of torch; None: pip's find-links.
    """

    base_image: str | None = None
    network: str = "default"
    uid: int = 1000
    gid: int = 1000
    no_cache: bool = False
    wheels: Path | None = None


def target(variant: str) -> str:
    """What a variant is, wherever its torch comes from: a key of `TITLES`.

    Raises:
        UsageError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UsageError(
            f"there is no image {variant!r}", fix=f"choose one of {', '.join(VARIANTS)}"
        )
    return variant.partition("-")[0] + (JUPYTER if variant.endswith(JUPYTER) else "")


def locks(variant: str, files: Path) -> list[Path]:
    """The requirement files of a variant, in a tree of the repository."""
    names = [variant.removesuffix(JUPYTER)] + ["jupyter"] * variant.endswith(JUPYTER)
    return [files / "requirements" / "images" / f"{name}.txt" for name in names]


def tags(variant: str, source: context.Commit) -> list[str]:
    """The names that a build gets; the first is the one that is loaded."""
    commit = source.sha[:12] + ("-dirty" if source.dirty else "")
    names = [f"{NAME}:{variant}", f"{NAME}:{variant}-{commit}", f"{NAME}:{target(variant)}"]
    return list(dict.fromkeys(names))


def labels(variant: str, source: context.Commit, pinned: list[Path]) -> dict[str, str]:
    """The image's labels; ``pinned`` are its `locks`."""
    created = dt.datetime.fromtimestamp(source.epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    oci = "org.opencontainers.image."
    return {
        f"{oci}title": TITLES[target(variant)],
        f"{oci}version": __version__,
        f"{oci}revision": source.label,
        f"{oci}created": created,
        f"{oci}licenses": "Apache-2.0",
        "vnquant.lock": hashlib.sha256(b"".join(p.read_bytes() for p in pinned)).hexdigest(),
        "vnquant.schema-version": str(SCHEMA_VERSION),
        "vnquant.variant": variant,
    }


@dataclass(frozen=True)
class Digests:
    """An image's identity: of its manifest, and of its configuration, which names all content."""

    manifest: str
    config: str


def make(variant: str, source: context.Commit, options: Options, output: str) -> Digests:
    """Run one build.

    Args:
        output: what becomes of the image, in BuildKit's words.

    Raises:
        RetryableError: the build failed; the sentence ends with the builder's last lines.
        UsageError: the lock needs a wheel that is in no folder.
    """
    with tempfile.TemporaryDirectory(prefix="vnquant-image-") as name:
        folder = Path(name)
        files = folder / "context"
        files.mkdir()
        context.lay_out(context.checkout(), source, files)
        pinned = locks(variant, files)
        lock = pinned[0]
        settings = context.pip_settings()
        found = context.local_wheels(lock, options.wheels, settings, folder / "wheels")
        if variant.startswith("cpu-wheels") and not found:
            raise UsageError(
                "no folder of wheels has the torch that the lock pins",
                where=lock.name,
                fix="name the folder with --wheels, or build the variant cpu or cpu-pypi",
            )
        secrets = context.pip_secrets(settings, folder)
        base = options.base_image or context.base_image(files / "docker" / "Dockerfile")
        facts = folder / "facts.json"
        command = [
            *("docker", "buildx", "build", "--progress=plain", "--file"),
            *(str(files / "docker" / "Dockerfile"), "--target", _stage(variant)),
            *("--provenance=false", "--sbom=false", f"--network={options.network}"),
            *(["--no-cache"] if options.no_cache else []),
            *_pairs("--build-arg", _arguments(variant, source, options, base)),
            *_pairs("--label", labels(variant, source, pinned)),
            *("--build-context", f"wheels={folder / 'wheels'}"),
            *(w for n, p in secrets.items() for w in ("--secret", f"id={n},src={p}")),
            *("--metadata-file", str(facts), "--output", output, str(files)),
        ]
        done = run(command, check=False, env={"SOURCE_DATE_EPOCH": str(source.epoch)})
        if done.code != 0:
            last = redacted("\n".join(done.err.strip().splitlines()[-LAST_LINES:]))
            raise RetryableError(
                f"the build failed:\n{last}\n",
                where=f"image {variant}",
                fix="see docs/images.md, and try again",
            )
        made = json.loads(facts.read_text(encoding="utf-8"))
    return Digests(made["containerimage.digest"], made["containerimage.config.digest"])


@contextlib.contextmanager
def built(variant: str, source: context.Commit, options: Options) -> Iterator[Archive]:
    """Build into an archive that exists until the block ends; the engine does not keep it."""
    with tempfile.TemporaryDirectory(prefix="vnquant-archive-") as name:
        path = Path(name, "image.tar")
        make(variant, source, options, f"type=docker,name={NAME}:{variant},dest={path}")
        yield read_archive(path)


def _stage(variant: str) -> str:
    """The Dockerfile's target."""
    return "jupyter" if variant.endswith(JUPYTER) else target(variant)


def _arguments(variant: str, source: context.Commit, options: Options, base: str) -> dict[str, str]:
    return {
        "BASE_IMAGE": base,
        "VARIANT": variant.removesuffix(JUPYTER),
        "RUNTIME": target(variant).removesuffix(JUPYTER),
        "COMMIT": source.label,
        "UID": str(options.uid),
        "GID": str(options.gid),
    }


def _pairs(flag: str, values: dict[str, str]) -> Iterator[str]:
    for key, value in values.items():
        yield from (flag, f"{key}={value}")
