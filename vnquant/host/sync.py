"""Compare a workspace with a store: bring back what is missing, and say what differs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from vnquant.host.publisher import Publisher
from vnquant.host.stores import Receipt, beside, file_hash


@dataclass
class Comparison:
    """Names on both sides. ``changed``: the local bytes are not those of the newest receipt."""

    same: list[str] = field(default_factory=list)
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
    publisher.recall()
    found = Comparison()
    for name, receipt in sorted(publisher.store.receipts().items()):
        if not name.startswith(prefix) or "/history/" in name:
            continue
        path = publisher.workspace / name
        if not path.exists():
            found.only_there.append(receipt)
        elif file_hash(path) == receipt.sha256:
            found.same.append(name)
        else:
            found.changed.append(receipt)
    files, markers = publisher.backlog()
    known = {r.name for r in found.changed}
    found.unpublished = [
        a.name
        for a in (*files, *markers)
        if a.name.startswith(prefix) and a.name not in known and "/history/" not in a.name
    ]
    # A backlog entry whose bytes have a receipt is only not remembered here.
    found.unpublished = [n for n in found.unpublished if n not in set(found.same)]
    return found


def pull(publisher: Publisher, prefix: str = "") -> tuple[list[Path], list[Path]]:
    """Fetch what is missing here; returns those files, and those kept beside a changed one.

    Markers come last, so that a pull cut short leaves nothing that looks whole.

    Raises:
        DataError, RetryableError: as `Store.fetch`; files fetched before stay.
    """
    found = compare(publisher, prefix)
    marks = ("DONE.json", "set.json")
    first = [r for r in found.only_there if not r.name.endswith(marks)]
    last = [r for r in found.only_there if r.name.endswith(marks)]
    fetched = publisher.store.fetch(first, publisher.workspace)
    fetched += publisher.store.fetch(last, publisher.workspace)
    rivals = [replace(r, name=beside(r.name, r.sha256)) for r in found.changed]
    rivals = [r for r in rivals if not (publisher.workspace / r.name).exists()]
    return fetched, publisher.store.fetch(rivals, publisher.workspace)


def verify(publisher: Publisher, prefix: str = "") -> Comparison:
    """`compare`, with every published byte downloaded and checked."""
    import tempfile

    from vnquant.errors import DataError

    found = compare(publisher, prefix)
    receipts = publisher.store.receipts()
    for name in [*found.same, *(r.name for r in (*found.only_there, *found.changed))]:
        with tempfile.TemporaryDirectory(dir=publisher.folder) as folder:
            try:
                publisher.store.fetch([receipts[name]], Path(folder))
            except DataError:
                found.damaged.append(name)
    return found
