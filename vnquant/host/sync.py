"""Compare a workspace with a store: bring back what is missing, and say what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vnquant.errors import DataError
from vnquant.host.discovery import MARKERS, is_snapshot
from vnquant.host.publisher import BATCH_FILES, Publisher
from vnquant.host.stores import Receipt, beside, file_hash


@dataclass
class Comparison:
    """Names on both sides. ``changed``: the local bytes are not those of the newest receipt."""

    same: list[Receipt] = field(default_factory=list)
    only_there: list[Receipt] = field(default_factory=list)
    changed: list[Receipt] = field(default_factory=list)
    unpublished: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.changed or self.unpublished or self.damaged)


def compare(publisher: Publisher, prefix: str = "") -> Comparison:
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
        elif file_hash(path) == receipt.sha256:
            found.same.append(receipt)
        else:
            found.changed.append(receipt)
    # A backlog entry whose bytes have a receipt is only not remembered here.
    known = {r.name for r in (*found.same, *found.changed)}
    found.unpublished = [
        a.name
        for wave in publisher.backlog()
        for a in wave
        if a.name.startswith(prefix) and a.name not in known and not is_snapshot(a.name)
    ]
    return found


def pull(publisher: Publisher, prefix: str = "") -> tuple[list[Path], list[Path]]:
    """Fetch what is missing here; returns those files, and those kept beside a changed one.

    Markers come last, so that a pull cut short leaves nothing that looks whole.

    Raises:
        DataError, RetryableError: as `Store.fetch`; files fetched before stay.
    """
    found = compare(publisher, prefix)
    first = [r for r in found.only_there if not r.name.endswith(MARKERS)]
    last = [r for r in found.only_there if r.name.endswith(MARKERS)]
    fetched = publisher.store.fetch(first, publisher.workspace)
    fetched += publisher.store.fetch(last, publisher.workspace)
    rivals = [replace(r, name=beside(r.name, r.sha256)) for r in found.changed]
    rivals = [r for r in rivals if not (publisher.workspace / r.name).exists()]
    return fetched, publisher.store.fetch(rivals, publisher.workspace)


def verify(publisher: Publisher, prefix: str = "") -> Comparison:
    """`compare`, with every published byte downloaded and checked."""
    found = compare(publisher, prefix)
    receipts = [*found.same, *found.only_there, *found.changed]
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
