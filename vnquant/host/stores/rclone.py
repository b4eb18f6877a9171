"""Any rclone remote as a store, through the rclone command.

The order of steps is the one that never claimed a loss as saved (measured with kill -9, truncated
uploads and dead servers): upload under an incoming name, compare the remote's bytes, move, write
the receipt, read it back. Many files share each step, so small ones cost little more than a plain
copy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from vnquant.errors import DataError, RetryableError, UsageError
from vnquant.host import process, stores
from vnquant.host.findings import Finding
from vnquant.host.stores import INCOMING, RECEIPTS, Artefact, Receipt

FLAGS = (
    *("--retries", "3", "--low-level-retries", "5", "--contimeout", "10s", "--timeout", "60s"),
    *("--stats", "0", "--transfers", "8", "--checkers", "16", "--use-json-log"),
)
STRONG = ("sha256", "sha1", "md5")
SLOWEST = 50_000
"""Bytes a second; an upload that takes longer than that is taken for stuck."""
NOT_FOUND = (3, 4)
PART_BYTES, PART_FILES = 32_000_000, 100


class RcloneStore:
    """Talks to the remote only through child processes that end."""

    def __init__(self, address: str, cache: Path) -> None:
        self.address = process.redacted(address)
        self._remote = address
        self._cache = cache

    def _path(self, *parts: str) -> str:
        inside = "/".join(parts)
        if not inside:
            return self._remote
        return f"{self._remote}{'' if self._remote.endswith(':') else '/'}{inside}"

    def _rclone(
        self, *words: str, size: int = 0, input: bytes | None = None, missing_ok: bool = False
    ) -> str:
        """Run rclone; its standard output.

        Raises:
            RetryableError: it failed; its last error is quoted without secrets.
        """
        done = process.run(
            ["rclone", *words, *FLAGS], input=input, timeout=120 + size / SLOWEST, check=False
        )
        if done.code == 0:
            return done.out
        if missing_ok and done.code in NOT_FOUND:
            return ""
        raise RetryableError(
            f"rclone {words[0]} failed ({_reason(done.err)})",
            where=self.address,
            fix="it is tried again; `vnquant doctor` and `rclone lsd` show whether it is reachable",
        )

    def preflight(self) -> list[Finding]:
        remote = self._remote.partition(":")[0]
        try:
            known = process.run(["rclone", "listremotes"], timeout=20).out.split()
        except UsageError:
            return [Finding("error", "rclone is not installed", "install rclone 1.60 or newer")]
        except RetryableError as error:
            return [Finding("error", error.what, "see `rclone config`")]
        if remote and f"{remote}:" not in known:
            fix = f"make it with `rclone config`, or name one of: {' '.join(known) or 'none yet'}"
            return [Finding("error", f"rclone knows no remote {remote}", fix)]
        found = [f for f in (drive_finding(remote),) if f]
        quick = ("--retries", "1", "--low-level-retries", "1", "--timeout", "15s")
        # The last of a repeated flag counts.
        done = process.run(
            ["rclone", "lsf", "--max-depth", "1", self._path(), *FLAGS, *quick],
            timeout=60,
            check=False,
        )
        if done.code not in (0, *NOT_FOUND):
            why = _reason(done.err)
            fix = "see that it is reachable; a run can start without --remote and be pushed later"
            return [*found, Finding("error", f"{self.address} does not answer ({why})", fix)]
        return [*found, Finding("ok", f"{self.address} answers, verified by {self._verified_by}")]

    @cached_property
    def _hash(self) -> str | None:
        """The strongest hash that the remote itself can tell, if any."""
        text = process.run(["rclone", "backend", "features", self._path()], timeout=60).out
        offered = {str(h).lower() for h in json.loads(text).get("Hashes") or []}
        return next((h for h in STRONG if h in offered), None)

    @property
    def _verified_by(self) -> str:
        return f"the remote's own {self._hash}" if self._hash else "downloaded, sha256"

    def publish(self, batch: Sequence[Artefact]) -> list[Receipt]:
        if not batch:
            return []
        name = uuid.uuid4().hex
        with tempfile.TemporaryDirectory(dir=_made(self._cache / "outbox")) as folder:
            outbox = Path(folder)
            wanted, told = self._collect(batch, outbox)
            taken = self._sizes({r.name for r in wanted} | {_beside(r) for r in wanted})
            plan = self._placed(wanted, taken, told)
            new = [r for r in plan if r.stored not in taken]
            for receipt in new:
                self._rename(outbox, receipt)
            if new:
                self._upload(name, outbox, new, told)
            content = stores.to_json(plan)
            receipt_name = f"{RECEIPTS}/{name}.json"
            self._rclone("rcat", self._path(receipt_name), input=content)
            if self._rclone("cat", self._path(receipt_name)).encode() != content:
                raise RetryableError("the receipt arrived damaged", where=self.address)
        return plan

    def _collect(
        self, batch: Sequence[Artefact], outbox: Path
    ) -> tuple[list[Receipt], dict[str, str]]:
        """Link every file into the outbox: whoever prunes the original cannot cut it short.

        Returns:
            Receipts to come, and by name the hash that the remote should tell.
        """
        wanted, told = [], {}
        for artefact in batch:
            name = stores.checked_name(artefact.name)
            here = outbox / name
            here.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(artefact.path, here)
            except OSError:
                shutil.copyfile(artefact.path, here)
            sha256 = stores.file_hash(here)
            size = here.stat().st_size
            wanted.append(Receipt(name, name, size, sha256, self._verified_by, stores.now()))
            own = self._hash or "sha256"
            told[name] = sha256 if own == "sha256" else stores.file_hash(here, own)
        return wanted, told

    def _sizes(self, names: set[str]) -> dict[str, int]:
        """Which of these names the remote has, with sizes."""
        folders = {str(PurePosixPath(n).parent) for n in names}
        common = os.path.commonpath(folders) if folders else ""
        common = "" if common == "." else common
        text = self._rclone(
            *("lsjson", "-R", "--files-only", "--no-modtime", "--no-mimetype"),
            self._path(common),
            missing_ok=True,
        )
        rows = json.loads(text) if text.strip() else []
        prefix = f"{common}/" if common else ""
        return {prefix + r["Path"]: int(r["Size"]) for r in rows if prefix + r["Path"] in names}

    def _placed(
        self, wanted: Sequence[Receipt], taken: dict[str, int], told: dict[str, str]
    ) -> list[Receipt]:
        """Receipts with their final places: under their names, unless other bytes are there."""
        same = [r for r in wanted if taken.get(r.name) == r.size]
        other = set(self._differing("", same, told)) | {
            r.name for r in wanted if taken.get(r.name, r.size) != r.size
        }
        plan = [replace(r, stored=_beside(r)) if r.name in other else r for r in wanted]
        # Names beside carry the hash, so what is there is either the same or a damaged copy.
        again = [r for r in plan if r.stored != r.name and r.stored in taken]
        if wrong := self._differing("", again, told):
            raise DataError(f"{wrong[0]} holds damaged bytes", where=self.address)
        return plan

    def _rename(self, outbox: Path, receipt: Receipt) -> None:
        if receipt.stored != receipt.name:
            (outbox / receipt.name).rename(outbox / receipt.stored)

    def _upload(
        self, name: str, outbox: Path, new: Sequence[Receipt], told: dict[str, str]
    ) -> None:
        incoming = f"{INCOMING}/{name}"
        wrong: list[str] = []
        # Big enough that the start of a process is nothing beside the transfer.
        parts = stores.batches(((r, r.size) for r in new), PART_FILES, PART_BYTES)
        # What must be downloaded to be verified comes down while the next part goes up.
        with ThreadPoolExecutor(1) as verifier:
            looks = []
            for part in [new] if self._hash else parts:
                self._send(incoming, outbox, part)
                looks.append(verifier.submit(self._differing, incoming, part, told))
            for look in looks:
                wrong += look.result()
        if wrong:
            raise RetryableError(
                f"{len(wrong)} files arrived damaged, {wrong[0]} among them",
                where=self.address,
                fix="they are sent again",
            )
        # Folder by folder: rclone refuses to move into a folder that holds the source.
        for top in sorted({PurePosixPath(r.stored).parts[0] for r in new}):
            verb = "moveto" if any(r.stored == top for r in new) else "move"
            self._rclone(
                *(verb, self._path(incoming, top), self._path(top), "--immutable"),
                size=sum(r.size for r in new),
            )

    def _send(self, incoming: str, outbox: Path, part: Sequence[Receipt]) -> None:
        self._rclone(
            *("copy", str(outbox), self._path(incoming)),
            *("--files-from-raw", "-", "--no-traverse", "--no-check-dest", "--ignore-times"),
            size=sum(r.size for r in part),
            input=_listed(part),
        )

    def _differing(
        self, folder: str, receipts: Sequence[Receipt], told: dict[str, str]
    ) -> list[str]:
        """Where the remote's bytes have another hash than they should."""
        if not receipts:
            return []
        own = self._hash
        size = sum(r.size for r in receipts)
        download = () if own else ("--download",)
        text = self._rclone(
            *("hashsum", own or "sha256", *download, self._path(folder)),
            *("--files-from-raw", "-", "--no-traverse"),
            size=size,
            input=_listed(receipts),
            missing_ok=True,
        )
        there = {}
        for line in text.splitlines():
            value, _, path = line.partition("  ")
            there[path] = value.strip().lower()
        return [r.stored for r in receipts if there.get(r.stored) != told[r.name]]

    def receipts(self) -> dict[str, Receipt]:
        """Receipts never change, so only new ones are downloaded."""
        cache = _made(self._cache / RECEIPTS)
        self._rclone(
            *("copy", self._path(RECEIPTS), str(cache), "--ignore-existing", "--no-traverse"),
            missing_ok=True,
        )
        return stores.newest({p.name: p.read_bytes() for p in sorted(cache.glob("*.json"))})

    def fetch(self, receipts: Iterable[Receipt], into: Path) -> list[Path]:
        wanted = list(receipts)
        if not wanted:
            return []
        with tempfile.TemporaryDirectory(dir=_made(self._cache / "inbox")) as folder:
            inbox = Path(folder)
            self._rclone(
                *("copy", self._path(), folder, "--files-from-raw", "-", "--no-traverse"),
                size=sum(r.size for r in wanted),
                input="".join(f"{stores.checked_name(r.stored)}\n" for r in wanted).encode(),
            )
            for receipt in wanted:
                here = inbox / receipt.stored
                if not here.is_file() or stores.file_hash(here) != receipt.sha256:
                    raise DataError(
                        f"{receipt.stored} is not what its receipt says",
                        where=self.address,
                        fix="publish it again from a machine that has it",
                    )
            return [_moved(inbox / r.stored, into / stores.checked_name(r.name)) for r in wanted]


def drive_finding(remote: str) -> Finding | None:
    """Google Drive needs a client id of its own: rclone's shared one is being retired."""
    done = process.run(["rclone", "config", "dump"], timeout=20, check=False)
    try:
        settings = json.loads(done.out).get(remote, {}) if done.code == 0 else {}
    except ValueError:
        return None
    if settings.get("type") == "drive" and not settings.get("client_id"):
        return Finding(
            "error",
            f"the Google Drive remote {remote} has no client id of its own",
            "make one (docs/publishing.md) and give it to rclone: the shared one is being retired",
        )
    return None


def _listed(receipts: Sequence[Receipt]) -> bytes:
    """Stored names, as ``--files-from-raw -`` reads them."""
    return "".join(f"{r.stored}\n" for r in receipts).encode()


def _beside(receipt: Receipt) -> str:
    return stores.beside(receipt.name, receipt.sha256)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _moved(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb+") as handle:
        os.fsync(handle.fileno())
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    shutil.move(source, aside)
    aside.replace(target)
    return target


def _reason(text: str) -> str:
    """The last error in rclone's JSON log, without secrets."""
    last = text.strip().splitlines()[-1:] or ["it said nothing"]
    for line in reversed(text.splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("level") in ("error", "critical", "fatal"):
            last = [str(row.get("msg", ""))]
            break
    return process.redacted(re.sub(r"\s+", " ", last[0]))[:300]
