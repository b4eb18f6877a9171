"""Container images: build them reproducibly, say what a local one is, prove that it rebuilds.

Builds go through the docker CLI, because the SDK has no BuildKit; questions go through the SDK.
One Dockerfile makes all images (docker/Dockerfile); a variant is a target of it and a lock.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vnquant.errors import DataError, UsageError
from vnquant.host import image_context as context
from vnquant.host.image_archive import differences, read_archive
from vnquant.host.image_build import NAME, VARIANTS, Options, built, make, tags, target
from vnquant.host.image_engine import client
from vnquant.host.process import run
from vnquant.spec import SCHEMA_VERSION
from vnquant.workspace import read_json, write_bytes, write_json

RECORDS = Path("build", "images")
DEFAULT = Options()
Say = Callable[[str], None]


@dataclass(frozen=True)
class ImageInfo:
    """What a local image says about itself.

    ``id`` is the engine's name for it; ``manifest_digest`` is the identity that manifests of runs
    carry. Labels that are absent are empty.
    """

    id: str
    manifest_digest: str
    commit: str
    lock: str
    schema_version: str
    variant: str
    created: str


def build(variant: str, options: Options = DEFAULT, say: Say = print) -> dict[str, Any]:
    """Build from the checkout, load into the engine, and keep a record in ``build/images``.

    Files that differ from the commit are allowed: the image then says that it is dirty.

    Returns:
        The record: digests, layers, base, builder, seconds.
    """
    target(variant)
    root = context.checkout()
    source = context.commit(root)
    if source.dirty:
        say(f"Files differ from commit {source.sha[:12]}: the image is marked dirty.")
    say(f"Building {variant}; the first time takes minutes.")
    names = tags(variant, source)
    begun = time.monotonic()
    made = make(variant, source, options, f"type=image,name={names[0]},unpack=true")
    seconds = time.monotonic() - begun
    image = client().images.get(names[0])
    for name in names[1:]:
        image.tag(*name.split(":"))
    record = {
        "variant": variant,
        "tags": names,
        "commit": source.label,
        "epoch": source.epoch,
        "id": image.id,
        "manifest_digest": made.manifest,
        "config_digest": made.config,
        "labels": image.labels,
        "layers": image.attrs["RootFS"]["Layers"],
        "bytes": image.attrs["Size"],
        "base_image": options.base_image or context.base_image(root / "docker" / "Dockerfile"),
        "options": {"uid": options.uid, "gid": options.gid, "network": options.network},
        "no_cache": options.no_cache,
        "seconds": round(seconds, 1),
        "builder": context.builder_versions(),
    }
    write_json(root / RECORDS / f"{variant}.json", record)
    # Read by the compose files, so that the manifest of a run there names its image too.
    line = f"VNQUANT_IMAGE_DIGEST={made.manifest}\n"
    write_bytes(root / RECORDS / f"{target(variant)}.env", line.encode())
    return record


def verify(variant: str, options: Options = DEFAULT, say: Say = print) -> list[str]:
    """Build the local image's commit again with nothing cached, and compare.

    Returns:
        A sentence for each difference; none: the digest is the same.

    Raises:
        UsageError: there is no such image, or it was built from files that are in no commit.
    """
    info = inspect(f"{NAME}:{variant}")
    if not info.commit or info.commit.endswith("-dirty"):
        raise UsageError(
            "was built from files that no commit has, so nothing can rebuild it",
            where=f"image {NAME}:{variant}",
            fix=f"commit them and run: vnquant image build {variant}",
        )
    root = context.checkout()
    record = read_record(root, info.id) or {}
    made = record.get("options", {})
    options = replace(
        options,
        base_image=options.base_image or record.get("base_image"),
        uid=made.get("uid", options.uid),
        gid=made.get("gid", options.gid),
        no_cache=True,
    )
    say(f"Building commit {info.commit[:12]} again.")
    source = context.commit(root, info.commit)
    again = make(variant, source, options, "type=image,store=false")
    if info.manifest_digest == again.manifest or info.id == again.config:
        return []
    say("The digests differ; comparing the files.")
    with tempfile.TemporaryDirectory(prefix="vnquant-archive-") as folder:
        local = Path(folder, "local.tar")
        run(["docker", "save", "--output", str(local), f"{NAME}:{variant}"])
        with built(variant, source, replace(options, no_cache=False)) as archive:
            found = differences(read_archive(local), archive)
    now = context.builder_versions()
    if record and record.get("builder") != now:
        found.append(f"the builder: {record.get('builder')} against {now}")
    return found


def inspect(tag: str) -> ImageInfo:
    """What a local image is.

    Raises:
        UsageError: there is no such image.
    """
    import docker.errors

    try:
        image = client().images.get(tag)
    except docker.errors.ImageNotFound:
        variant = tag.rpartition(":")[2]
        raise UsageError(
            "there is no such image on this machine",
            where=f"image {tag}",
            fix=f"build it: vnquant image build {variant if variant in VARIANTS else 'cpu'}",
        ) from None
    return describe(image.attrs)


def describe(attributes: dict[str, Any]) -> ImageInfo:
    """The parts of the engine's answer about an image that this program uses."""
    labels = (attributes.get("Config") or {}).get("Labels") or {}
    identity = str(attributes["Id"])
    descriptor = attributes.get("Descriptor") or {}
    digest = str(descriptor.get("digest") or "")
    if not digest:  # a store that names images by their configuration; our record knows more
        with contextlib.suppress(UsageError):
            record = read_record(context.checkout(), identity) or {}
            digest = str(record.get("manifest_digest", ""))
    return ImageInfo(
        id=identity,
        manifest_digest=digest or identity,
        commit=labels.get("org.opencontainers.image.revision", ""),
        lock=labels.get("vnquant.lock", ""),
        schema_version=labels.get("vnquant.schema-version", ""),
        variant=labels.get("vnquant.variant", ""),
        created=labels.get("org.opencontainers.image.created", ""),
    )


def local() -> list[tuple[str, ImageInfo, int]]:
    """Every tag of this program's images here, with the image and its compressed size in bytes."""
    found = client().images.list(filters={"label": "vnquant.variant"})
    rows = [(tag, describe(i.attrs), int(i.attrs["Size"])) for i in found for tag in i.tags]
    return sorted(rows, key=lambda row: row[0])


def read_record(root: Path, identity: str) -> dict[str, Any] | None:
    """The record of the build that made an image, found by any of its digests."""
    for path in sorted((root / RECORDS).glob("*.json")):
        record = read_json(path)
        if isinstance(record, dict) and identity in (
            record.get("id"),
            record.get("manifest_digest"),
            record.get("config_digest"),
        ):
            return record
    return None


def matches_code(info: ImageInfo) -> str | None:
    """Why an image would not run the code that is checked out here; None: it would.

    Returns:
        One sentence without a final stop.
    """
    from vnquant.manifest import code_version

    if info.schema_version != str(SCHEMA_VERSION):
        return (
            f"the image reads run specs of schema {info.schema_version or 'unknown'},"
            f" this program writes schema {SCHEMA_VERSION}"
        )
    code = code_version()
    if code["commit"] is None:
        return None  # an installed copy knows no commit; the schema is all that can be compared
    if info.commit.removesuffix("-dirty") != code["commit"]:
        made = info.commit[:12] or "unknown"
        return f"the image was built from commit {made}, and {code['commit'][:12]} is checked out"
    if code["dirty"] or info.commit.endswith("-dirty"):
        return "files were changed since the commit that the image names"
    return None


def unequal(variant: str, found: list[str]) -> DataError:
    """The error of a verification that found differences."""
    return DataError(
        "the rebuilt image differs: " + "; ".join(found),
        where=f"image {NAME}:{variant}",
        fix="build it anew, or find out who changed the base, the packages or the builder",
    )
