"""Publish what a workspace has finished, for as long as it takes.

A process of its own beside the run: whatever happens to the remote or to this program, training
goes on. Its memory is the store's receipts; the local list of what is acknowledged only saves
hashing, and is checked against the receipts at every start.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import stamina

from vnquant.errors import DataError, RetryableError
from vnquant.host import discovery
from vnquant.host.launch import settle
from vnquant.host.records import launches
from vnquant.host.stores import Artefact, Receipt, Store, batches, open_store
from vnquant.workspace import read_json, write_json

BATCH_FILES, BATCH_BYTES = 64, 256_000_000
GROWING = 300.0
"""Seconds between two copies of files that grow, such as the log of events: each copy is kept."""
SIDE_BY_SIDE = 2  # one batch is verified while the next one is uploaded
Say = Callable[[str], None]


class Publisher:
    """Everything finished in a workspace, into one store.

    Args:
        workspace: the folder that runs write into.
        address: of the store; see `vnquant.host.stores.open_store`.
        run: only this run and the sets deployed from it; None: everything.
        say: told about what was saved and what went wrong.

    Raises:
        UsageError: the address is none.
    """

    def __init__(self, workspace: Path, address: str, run: str | None, say: Say) -> None:
        self.workspace, self.run, self._say = workspace, run, say
        self.folder = workspace / "publish" / hashlib.sha256(address.encode()).hexdigest()[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store: Store = open_store(address, cache=self.folder)
        self._known = self.folder / "acknowledged.json"
        self._acknowledged: dict[str, list[Any]] = {}
        self.bases: dict[str, str] = {}
        """Of each name, the sha256 of the bytes that this workspace last had in common with the
        store; filled by `recall`."""
        self._stop = threading.Event()
        self._idle: float | None = None
        self._growing = True
        self._worked = time.monotonic()
        self.last_error: str | None = None
        self.last_saved: str | None = None

    @contextlib.contextmanager
    def alone(self, *, patient: bool = False) -> Iterator[None]:
        """One publisher for a workspace and a store; the kernel frees the place of a dead one.

        Args:
            patient: wait for the other one for as long as the run is not over.

        Raises:
            RetryableError: another one is at work.
        """
        with (self.folder / "lock").open("a") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if patient and not self._stop.is_set() and not self._over():
                        self._stop.wait(1.0)
                        continue
                    raise RetryableError(
                        "another publisher is at work",
                        where=f"{self.workspace} to {self.store.address}",
                        fix="let it finish",
                    ) from None
            for name in ("outbox", "inbox", "snapshots"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            yield

    def recall(self) -> dict[str, Receipt]:
        """Believe the local list only where the store has a receipt; returns all receipts.

        Raises:
            RetryableError: the store does not answer.
        """
        receipts = self.store.receipts()
        known = read_json(self._known)
        known = known if isinstance(known, dict) else {}
        self.bases = {name: entry[2] for name, entry in known.items()}
        self._acknowledged = {
            name: entry
            for name, entry in known.items()
            if name in receipts and receipts[name].sha256 == entry[2]
        }
        return receipts

    def backlog(self) -> tuple[list[Artefact], list[Artefact]]:
        """What is finished and not acknowledged: files, and the markers after them."""
        shutil.rmtree(self.folder / "snapshots", ignore_errors=True)
        files, markers = discovery.artefacts(self.workspace, self.run)
        if self._growing:
            files += discovery.snapshots(self.workspace, self.run, self.folder / "snapshots")
        return [a for a in files if self._new(a)], [a for a in markers if self._new(a)]

    def _new(self, artefact: Artefact) -> bool:
        entry = self._acknowledged.get(artefact.name)
        if entry is None:
            return True
        if discovery.is_snapshot(artefact.name):
            return False  # named by its content
        try:
            return entry[:2] != _stamp(artefact.path)
        except OSError:
            return False  # pruned meanwhile

    def publish(self) -> list[Receipt]:
        """Publish the backlog; returns what was saved.

        Raises:
            RetryableError: something is left; it will be tried again.
        """
        saved: list[Receipt] = []
        for wave in self.backlog():
            with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                futures = [pool.submit(self._publish, batch) for batch in split(wave)]
                results = [(f, f.exception()) for f in futures]
            saved += [r for f, error in results if error is None for r in f.result()]
            self._remember()
            for _, error in results:
                if error is not None:
                    raise error
        return saved

    def _publish(self, batch: Sequence[Artefact]) -> list[Receipt]:
        if self._stop.is_set():
            raise RetryableError("stopped", where="publisher")
        present, stamps = [], {}
        for artefact in batch:
            with contextlib.suppress(OSError):
                stamps[artefact.name] = _stamp(artefact.path)
                present.append(artefact)
        try:
            receipts = self.store.publish(present)
        except FileNotFoundError as error:  # pruned between the look and the link
            raise RetryableError(f"{error.filename} has gone", where="publisher") from error
        for receipt in receipts:
            entry = [*stamps[receipt.name], receipt.sha256]
            self._acknowledged[receipt.name] = entry
            if receipt.stored != receipt.name:
                self._say(f"{receipt.name}: other bytes are there; kept as {receipt.stored}")
        return receipts

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        """Take note that the local bytes are those of these receipts."""
        for receipt in receipts:
            stamp = _stamp(self.workspace / receipt.name)
            self._acknowledged[receipt.name] = [*stamp, receipt.sha256]
        if receipts:
            self._remember()

    def _remember(self) -> None:
        write_json(self._known, self._acknowledged)

    def drain(self, attempts: int = 5) -> list[Receipt]:
        """Publish until nothing is left, trying again with growing, jittered pauses.

        Raises:
            RetryableError: the store still fails after ``attempts``.
        """
        saved: list[Receipt] = []
        for attempt in stamina.retry_context(
            on=RetryableError, attempts=attempts, wait_initial=1.0, wait_max=60.0, timeout=None
        ):
            with attempt:
                self.recall()
                saved += self.publish()
        self.note()
        return saved

    def watch(self, interval: float = 5.0, idle: float | None = None) -> None:
        """Publish until the run is over and nothing is left, or until told to stop.

        Args:
            interval: seconds between two looks.
            idle: of all runs: they are over when nothing has worked on one for so many seconds.
        """
        recalled, copied = False, -GROWING
        self._idle, self._worked = idle, time.monotonic()
        pause = interval
        while not self._stop.is_set():
            over = self._over()
            self._growing = over or time.monotonic() - copied >= GROWING
            try:
                if not recalled:
                    self.recall()
                    recalled = True
                if saved := self.publish():
                    self.last_saved = saved[-1].name
                    size = sum(r.size for r in saved)
                    self._say(f"saved {len(saved)} files, {size / 1e6:.1f} MB")
                copied = time.monotonic() if self._growing else copied
                self.last_error, pause = None, interval
                if over:
                    break
            except (RetryableError, DataError) as error:
                if self.last_error is None:
                    self._say(f"not saved yet: {error}")
                self.last_error = str(error)
                # Jitter by the process id: publishers of many machines must not come in step.
                pause = min(pause * 2, 120.0) * (0.75 + (os.getpid() % 100) / 200)
            self.note()
            self._stop.wait(pause)
        self.note()

    def _over(self) -> bool:
        if self.run is None:
            if self._idle is None:
                return False
            if discovery.at_work(self.workspace, self._idle):
                self._worked = time.monotonic()
            return time.monotonic() - self._worked > self._idle
        path = self.workspace / "runs" / self.run
        records = launches(path)
        for record in records:
            if "ended" not in record:
                settle(record)
        return bool(records) and all("ended" in record for record in records)

    def stop(self) -> None:
        """Make `watch` return after the batches that are under way."""
        self._stop.set()

    def note(self) -> None:
        """Leave the state where ``vnquant status`` looks."""
        files, markers = self.backlog()
        size = 0
        for artefact in (*files, *markers):
            with contextlib.suppress(OSError):
                size += artefact.path.stat().st_size
        state = {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "store": self.store.address,
            "backlog": len(files) + len(markers),
            "backlog_bytes": size,
            "acknowledged": len(self._acknowledged),
            "last_saved": self.last_saved,
            "last_error": self.last_error,
        }
        write_json(self.workspace / "publish" / "status.json", state)


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def split(artefacts: Sequence[Artefact]) -> list[list[Artefact]]:
    """Batches of at most `BATCH_FILES` files and about `BATCH_BYTES` bytes, in order."""
    sized = []
    for artefact in artefacts:
        with contextlib.suppress(OSError):  # pruned meanwhile
            sized.append((artefact, artefact.path.stat().st_size))
    return batches(sized, BATCH_FILES, BATCH_BYTES)
