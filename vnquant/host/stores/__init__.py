"""Where finished artefacts are kept beside this machine. Every store passes the same tests.

A store holds files under names that are never used twice for different bytes, and receipts. A
receipt is written only after the store's own bytes have been read back and compared; what has no
receipt is not saved, whatever lies there. Nothing is ever deleted or overwritten::

    STORE/.incoming/<batch>/...   uploads in progress
    STORE/<name>                  files; another content of the same name is kept beside it
    STORE/receipts/<batch>.json   names, sizes, sha256, and how they were verified
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from vnquant.errors import DataError, UsageError
from vnquant.host.findings import Finding

T = TypeVar("T")

INCOMING, RECEIPTS = ".incoming", "receipts"


@dataclass(frozen=True)
class Artefact:
    """A finished local file and the name it is to have in the store (a relative POSIX path)."""

    name: str
    path: Path


@dataclass(frozen=True)
class Receipt:
    """Proof that the store holds these bytes.

    Attributes:
        name: as it was published.
        stored: where the bytes are; differs from ``name`` if other bytes had that name already.
        sha256: of the bytes, 64 hex digits.
        verified_by: how the store's bytes were compared.
        time: UTC, ISO 8601.
    """

    name: str
    stored: str
    size: int
    sha256: str
    verified_by: str
    time: str


class Store(Protocol):
    """A place outside this machine, or a folder that stands for one."""

    address: str

    def preflight(self) -> list[Finding]:
        """Whether it can be used; asks it, within a bounded time."""
        ...

    def publish(self, batch: Sequence[Artefact]) -> list[Receipt]:
        """Save files; returns only when every one has been verified and has a receipt.

        Raises:
            RetryableError: it is not reachable, full, or what arrived differs; nothing is claimed.
        """
        ...

    def receipts(self) -> dict[str, Receipt]:
        """The newest receipt of every name."""
        ...

    def fetch(self, receipts: Iterable[Receipt], into: Path) -> list[Path]:
        """Bring files into a folder under their names, verified.

        Raises:
            DataError: the store's bytes are not what the receipt says.
            RetryableError: it is not reachable.
        """
        ...


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def batches(sized: Iterable[tuple[T, int]], files: int, size: int) -> list[list[T]]:
    """Parts of at most ``files`` items and ``size`` bytes, in order; a bigger item is alone.

    Args:
        sized: items with their bytes.
    """
    parts: list[list[T]] = []
    held = 0
    for item, own in sized:
        if not parts or len(parts[-1]) >= files or held + own > size:
            parts.append([])
            held = 0
        parts[-1].append(item)
        held += own
    return parts


def checked_name(name: str) -> str:
    """``name`` if it stays inside the store.

    Raises:
        DataError: it is absolute, climbs out, or meets the store's own folders.
    """
    parts = PurePosixPath(name).parts
    bad = not parts or name.startswith("/") or ".." in parts or parts[0] in (INCOMING, RECEIPTS)
    if bad or "\n" in name or "\\" in name:
        raise DataError(f"{name!r} is no name for a file in a store", where="store")
    return name


def beside(name: str, sha256: str) -> str:
    """Where other bytes of a name that is taken are kept: ``x.json`` -> ``x.v-1a2b3c4d.json``."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}.v-{sha256[:8]}{path.suffix}"))


def is_beside(name: str) -> bool:
    """Whether a name was made by `beside`."""
    return re.search(r"\.v-[0-9a-f]{8}(\.[^./]*)?$", name) is not None


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")


def to_json(receipts: Sequence[Receipt]) -> bytes:
    """The content of a receipt file."""
    body = {"format": 1, "files": [asdict(r) for r in receipts]}
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()


def newest(files: Mapping[str, bytes]) -> dict[str, Receipt]:
    """The newest receipt of every name in receipt files; a file cut short counts for nothing."""
    found: dict[str, Receipt] = {}
    for content in files.values():
        try:
            rows = [Receipt(**row) for row in json.loads(content)["files"]]
        except (ValueError, KeyError, TypeError):
            continue
        for row in rows:
            if row.name not in found or found[row.name].time < row.time:
                found[row.name] = row
    return found


def open_store(address: str, *, cache: Path) -> Store:
    """The store of an address: ``REMOTE:PATH`` of rclone, or a folder.

    Args:
        cache: local folder for what the store may remember between calls.

    Raises:
        UsageError: it is neither.
    """
    from vnquant.host.stores.directory import DirectoryStore
    from vnquant.host.stores.rclone import RcloneStore

    if address.startswith("directory:"):
        return DirectoryStore(Path(address.removeprefix("directory:")))
    if re.match(r"^(:?[\w.+@-]+)(,[^:]*)?:", address):
        return RcloneStore(address.rstrip("/"), cache)
    if "/" in address or address.startswith((".", "~")):
        return DirectoryStore(Path(address).expanduser())
    raise UsageError(
        f"{address!r} is neither a remote nor a folder",
        where="--remote",
        fix="write REMOTE:PATH as in rclone, for example gdrive:VN-Quant-Training, or ./folder",
    )
