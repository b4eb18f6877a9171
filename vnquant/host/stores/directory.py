"""A folder as a store: a mounted disk, a share, or a stand-in for tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from vnquant.errors import DataError, RetryableError
from vnquant.host import stores
from vnquant.host.findings import Finding
from vnquant.host.stores import INCOMING, RECEIPTS, Artefact, Receipt
from vnquant.workspace import sync_directory, write_bytes

VERIFIED_BY = "read back, sha256"


class DirectoryStore:
    """Files copied aside, synced, read back, and moved into place without replacing anything."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.address = str(self.root)

    def preflight(self) -> list[Finding]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / INCOMING / f"probe-{uuid.uuid4().hex}"
            write_bytes(probe, b"probe")
            probe.unlink()
        except (OSError, RetryableError) as error:
            return [Finding("error", f"{self.root} cannot be written ({error})", "see --remote")]
        free = shutil.disk_usage(self.root).free
        if free < 1e9:
            return [Finding("warning", f"{free / 1e9:.1f} GB are free in {self.root}", "make room")]
        return [Finding("ok", f"{self.root} can be written")]

    def publish(self, batch: Sequence[Artefact]) -> list[Receipt]:
        name = uuid.uuid4().hex
        incoming = self.root / INCOMING / name
        try:
            done = [self._save(artefact, incoming) for artefact in batch]
            if done:
                write_bytes(self.root / RECEIPTS / f"{name}.json", stores.to_json(done))
        except OSError as error:
            raise RetryableError(
                f"cannot be written ({error.strerror})", where=self.address, fix="see the disk"
            ) from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        return done

    def _save(self, artefact: Artefact, incoming: Path) -> Receipt:
        name = stores.checked_name(artefact.name)
        sha256 = stores.file_hash(artefact.path)
        size = artefact.path.stat().st_size
        stored = name
        for stored in (name, stores.beside(name, sha256)):
            target = self.root / stored
            if target.exists() and stores.file_hash(target) == sha256:
                break
            if target.exists():
                continue
            aside = incoming / stored
            aside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artefact.path, aside)
            with aside.open("rb+") as handle:
                os.fsync(handle.fileno())
            if stores.file_hash(aside) != sha256:
                raise RetryableError(
                    f"{name} arrived damaged", where=self.address, fix="it is sent again"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(aside, target)  # unlike a rename this never replaces a file
            except FileExistsError:
                continue
            except OSError:
                os.rename(aside, target)  # a file system without links
            sync_directory(target.parent)
            break
        else:
            raise DataError(f"{name} and {stored} hold other bytes", where=self.address)
        return Receipt(name, stored, size, sha256, VERIFIED_BY, stores.now())

    def receipts(self) -> dict[str, Receipt]:
        found = sorted((self.root / RECEIPTS).glob("*.json"))
        return stores.newest({p.name: p.read_bytes() for p in found})

    def fetch(self, receipts: Iterable[Receipt], into: Path) -> list[Path]:
        fetched = []
        for receipt in receipts:
            target = into / stores.checked_name(receipt.name)
            try:
                content = (self.root / stores.checked_name(receipt.stored)).read_bytes()
            except OSError as error:
                raise DataError(
                    f"{receipt.stored} cannot be read ({error.strerror})", where=self.address
                ) from error
            if hashlib.sha256(content).hexdigest() != receipt.sha256:
                raise DataError(
                    f"{receipt.stored} is not what its receipt says",
                    where=self.address,
                    fix="publish it again from a machine that has it",
                )
            write_bytes(target, content)
            fetched.append(target)
        return fetched
