"""The publisher beside a launch: start it, and say in the end what is saved and what is not."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from vnquant.accelerators.topology import read
from vnquant.errors import DataError, RetryableError
from vnquant.host import discovery, process, sync
from vnquant.host.findings import Finding
from vnquant.host.publisher import Publisher
from vnquant.host.stores import file_hash, open_store
from vnquant.workspace import read_json

CONCLUDE = 120.0
"""Seconds that a finished run's controller waits for the last files to be saved."""
AGAIN = 5.0
"""Seconds before a publisher that has left is followed by another one."""


def preflight(workspace: Path, remote: str) -> list[Finding]:
    """Whether the remote can be used now."""
    return open_store(remote, cache=_cache(workspace, remote)).preflight()


def _cache(workspace: Path, remote: str) -> Path:
    # Apart from the publisher's own, which only one process may use.
    return workspace / "publish" / f"{hashlib.sha256(remote.encode()).hexdigest()[:12]}-reader"


def bring(workspace: Path, remote: str, names: tuple[str, ...]) -> list[str]:
    """Fetch what the remote has below these names; sentences about what was done.

    A remote that fails now does not stop a launch: what is missing here is made again.
    """
    publisher = Publisher(workspace, remote, None, lambda _: None)
    try:
        with publisher.alone():
            fetched, rivals = sync.pull(publisher, names)
    except (RetryableError, DataError) as error:
        return [f"Not everything was brought back from the remote: {error}"]
    said = [f"{len(fetched)} files brought back from {publisher.store.address}."] if fetched else []
    return said + [f"Edited here and there; the remote's copy is kept as {p}." for p in rivals]


class Beside:
    """The publisher of one run, a process of its own that outlives the controller."""

    def __init__(self, workspace: Path, run: str, remote: str) -> None:
        self._workspace, self._run, self._remote = workspace, run, remote
        self._process: tuple[int, float | None] | None = None
        self.advice = f"`vnquant sync push --run {run} --workspace {workspace}` saves the rest."

    def start(self) -> None:
        """Start it, unless it is at work. It ends by itself when the run is over and saved."""
        if self._alive():
            return
        words = ["publish", "--watch", "--run", self._run, "--workspace", str(self._workspace)]
        pid = process.start(
            [sys.executable, "-m", "vnquant", *words],
            log=self._workspace / "publish" / "publisher.log",
            # Not as a word: an address may hold a password, and words can be seen by everybody.
            env={"RCLONE_REMOTE": self._remote},
            # On slow cores where there are any: training keeps the fast ones.
            cpus=read().cpus("e") or None,
        )
        self._process = (pid, process.started_at(pid))

    def _alive(self) -> bool:
        return self._process is not None and process.runs(*self._process)

    def conclude(self) -> str:
        """Wait for the publisher, for a while; one sentence about what is saved.

        The store's receipts are asked, not the publisher: it may have been killed, or another one
        may have held its place.

        Raises:
            RetryableError: the store does not answer.
        """
        until = time.monotonic() + CONCLUDE
        while True:
            while self._alive() and time.monotonic() < until:
                time.sleep(0.2)
            saved, left = self._compare()
            if not left or time.monotonic() + AGAIN > until:
                break
            self.start()
            time.sleep(AGAIN)
        where = open_store(self._remote, cache=_cache(self._workspace, self._remote)).address
        if not left:
            return f"Saved and verified on {where}: {saved} files."
        size = sum(p.stat().st_size for p in left if p.exists()) / 1e6
        error = (read_json(self._workspace / "publish" / "status.json") or {}).get("last_error")
        why = f" ({error})" if error else ""
        return f"NOT saved on {where} yet: {len(left)} files, {size:.1f} MB{why}. {self.advice}"

    def _compare(self) -> tuple[int, list[Path]]:
        """How many finished files have a receipt for their bytes, and those that have none."""
        store = open_store(self._remote, cache=_cache(self._workspace, self._remote))
        receipts = store.receipts()
        saved, left = 0, []
        for wave in discovery.artefacts(self._workspace, self._run):
            for artefact in wave:
                receipt = receipts.get(artefact.name)
                if receipt is None or receipt.sha256 != file_hash(artefact.path):
                    left.append(artefact.path)
                else:
                    saved += 1
        return saved, left
