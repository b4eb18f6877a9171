"""What is in an image archive, and in what two of them differ. Needs no container engine.

The digest of the manifest is the image's identity. It is read from the archive itself, because
what an engine calls an image's id is the digest of the manifest in one kind of image store and
that of the configuration in the other.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vnquant.errors import DataError

MOST_NAMES = 8


@dataclass(frozen=True)
class Layer:
    """One layer. ``digest`` is of its compressed bytes, ``content`` of those unpacked."""

    digest: str
    content: str
    size: int
    made_by: str


@dataclass(frozen=True)
class Archive:
    """The parts of an image that decide whether two builds are the same."""

    path: Path
    manifest: str
    config: str
    settings: dict[str, Any]
    layers: tuple[Layer, ...]


def read_archive(path: Path) -> Archive:
    """Read an archive of ``docker buildx build --output type=docker`` or ``docker save``.

    Raises:
        DataError: it holds no image, or one whose parts are not what their digests say.
    """
    with tarfile.open(path) as tar:
        index = _json(tar, path, "index.json")
        manifest_digest = str(index["manifests"][0]["digest"])
        manifest = _blob(tar, path, manifest_digest)
        while "manifests" in manifest:  # an index of platforms, as `docker save` may write
            manifest_digest = str(manifest["manifests"][0]["digest"])
            manifest = _blob(tar, path, manifest_digest)
        config_digest = str(manifest["config"]["digest"])
        config = _blob(tar, path, config_digest)
    steps = [h["created_by"] for h in config["history"] if not h.get("empty_layer")]
    contents = config["rootfs"]["diff_ids"]
    layers = tuple(
        Layer(entry["digest"], content, entry["size"], step)
        for entry, content, step in zip(manifest["layers"], contents, steps, strict=True)
    )
    return Archive(path, manifest_digest, config_digest, config, layers)


def _open(tar: tarfile.TarFile, path: Path, name: str) -> IO[bytes]:
    try:
        opened = tar.extractfile(name)
    except KeyError:
        opened = None
    if opened is None:
        raise DataError(
            f"has no {name}", where=str(path), fix="build it with the containerd image store"
        )
    return opened


def _json(tar: tarfile.TarFile, path: Path, name: str) -> Any:
    return json.loads(_open(tar, path, name).read())


def _blob(tar: tarfile.TarFile, path: Path, digest: str) -> Any:
    content = _open(tar, path, "blobs/" + digest.replace(":", "/")).read()
    if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{digest} is damaged", where=str(path), fix="build the image again")
    return json.loads(content)


def differences(one: Archive, other: Archive) -> list[str]:
    """A sentence for each thing in which two images differ; none: they are the same, bit by bit."""
    if one.manifest == other.manifest:
        return []
    found = _setting_differences(one.settings, other.settings)
    if len(one.layers) != len(other.layers):
        return [*found, f"{len(one.layers)} layers against {len(other.layers)}"]
    for number, (a, b) in enumerate(zip(one.layers, other.layers, strict=True), 1):
        if a.content != b.content:
            names = _changed_files(one.path, a, other.path, b)
            shown = ", ".join(names[:MOST_NAMES]) or "only the order of its files"
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            found.append(f"layer {number} ({_step(a)}): {shown}{more}")
        elif a.digest != b.digest:
            found.append(f"layer {number} ({_step(a)}): the same files, compressed differently")
    return found or ["the manifests differ in their media types or annotations"]


def _step(layer: Layer) -> str:
    return layer.made_by.removesuffix(" # buildkit").rpartition("/bin/sh -c ")[2][:60]


def _setting_differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    found = []
    a, b = one.get("config", {}), other.get("config", {})
    found += [
        f"setting {key}: {a.get(key)!r} against {b.get(key)!r}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]
    found += [
        f"{key}: {one.get(key)!r} against {other.get(key)!r}"
        for key in ("created", "architecture", "os", "variant")
        if one.get(key) != other.get(key)
    ]
    if one.get("history") != other.get("history"):
        found.append("the history of build steps")
    return found


def _changed_files(one: Path, a: Layer, other: Path, b: Layer) -> list[str]:
    before, after = _files(one, a), _files(other, b)
    return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))


def _files(path: Path, layer: Layer) -> dict[str, tuple[Any, ...]]:
    """What a layer says about each file: its kind, rights, owner, date, target and content."""
    found: dict[str, tuple[Any, ...]] = {}
    with tarfile.open(path) as tar:
        blob = _open(tar, path, "blobs/" + layer.digest.replace(":", "/"))
        with tarfile.open(fileobj=blob, mode="r|*") as files:
            for entry in files:
                opened = files.extractfile(entry) if entry.isreg() else None
                content = hashlib.file_digest(opened, "sha256").hexdigest() if opened else ""  # type: ignore[arg-type]
                found[entry.name] = (
                    *(entry.type, entry.mode, entry.uid, entry.gid, int(entry.mtime)),
                    *(entry.linkname, content),
                )
    return found
