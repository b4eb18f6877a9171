"""Compare a workspace with a store: bring back what is missing, and say what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vnquant.errors import DataError
from vnquant.host.discovery import MARKERS, is_shared, is_snapshot
from vnquant.host.publisher import BATCH_FILES, Publisher
from vnquant.host.stores import Receipt, beside, file_hash

Prefix = str | tuple[str, ...]


@dataclass
class Comparison:
    """Names on both sides.

    Attributes:
        changed: the local bytes are not those of the newest receipt.
        behind: of the shared folders, changed there and not here since both were the same.
    """

    same: list[Receipt] = field(default_factory=list)
    only_there: list[Receipt] = field(default_factory=list)
    changed: list[Receipt] = field(default_factory=list)
    behind: list[Receipt] = field(default_factory=list)
    unpublished: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.changed or self.unpublished or self.damaged)


def compare(publisher: Publisher, prefix: Prefix = "") -> Comparison:
    """Local files against receipts.

    Raises:
        RetryableError: the store does not answer.
    """
    found = Comparison()
    for name, receipt in sorted(publisher.recall().items()):
        if not name.startswith(prefix) or is_snapshot(name):
            continue
        path = publisher.workspace / name
        if not path.exists():
            found.only_there.append(receipt)
            continue
        here, base = file_hash(path), publisher.bases.get(name) if is_shared(name) else None
        if here == receipt.sha256:
            found.same.append(receipt)
        elif base == here:
            found.behind.append(receipt)
        elif base != receipt.sha256:  # else it was edited here only: it is in the backlog
            found.changed.append(receipt)
    # A backlog entry whose bytes have a receipt is only not remembered here.
    known = {r.name for r in (*found.same, *found.changed, *found.behind)}
    found.unpublished = [
        a.name
        for wave in publisher.backlog()
        for a in wave
        if a.name.startswith(prefix) and a.name not in known and not is_snapshot(a.name)
    ]
    return found


def pull(publisher: Publisher, prefix: Prefix = "") -> tuple[list[Path], list[Path]]:
    """Fetch what is missing or behind here; returns that, and what is kept beside a changed file.

    JSON comes after what it speaks of and markers come last, so that a pull cut short leaves
    nothing that looks whole.

    Raises:
        DataError, RetryableError: as `Store.fetch`; files fetched before stay.
    """
    found = compare(publisher, prefix)
    fetched = []
    for wave in range(3):
        wanted = [r for r in found.only_there + found.behind if _wave(r.name) == wave]
        fetched += publisher.store.fetch(wanted, publisher.workspace)
    agreed = (*found.same, *found.only_there, *found.behind)
    publisher.acknowledge([r for r in agreed if is_shared(r.name)])
    rivals = [replace(r, name=beside(r.name, r.sha256)) for r in found.changed]
    rivals = [r for r in rivals if not (publisher.workspace / r.name).exists()]
    return fetched, publisher.store.fetch(rivals, publisher.workspace)


def _wave(name: str) -> int:
    return 2 if name.endswith(MARKERS) else int(name.endswith(".json"))


def verify(publisher: Publisher, prefix: Prefix = "") -> Comparison:
    """`compare`, with every published byte downloaded and checked."""
    found = compare(publisher, prefix)
    receipts = [*found.same, *found.only_there, *found.changed, *found.behind]
    for begin in range(0, len(receipts), BATCH_FILES):
        found.damaged += _damaged(publisher, receipts[begin : begin + BATCH_FILES])
    return found


def _damaged(publisher: Publisher, receipts: Sequence[Receipt]) -> list[str]:
    """Names whose bytes are not those of the receipt; asked one by one only if there are any."""
    with tempfile.TemporaryDirectory(dir=publisher.folder) as folder:
        try:
            publisher.store.fetch(receipts, Path(folder))
        except DataError:
            if len(receipts) > 1:
                return [name for r in receipts for name in _damaged(publisher, [r])]
            return [receipts[0].name]
    return []
