"""Deployed sets: promoted whole or not at all, kept, verified, and rolled back byte for byte.

A set is an immutable folder; which one is current is one small file replaced atomically. A reader
resolves that file once and then reads only inside its set, so it never sees half a deployment.
Layout::

    registry/sets/<set id>/     model files and set.json (names, sizes, sha256 of every file)
    registry/incoming/          copies in progress; swept by the next promotion
    registry/current.json       which set is current
    registry/journal.jsonl      every promotion and rollback, appended
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vnquant.errors import RetryableError, UsageError
from vnquant.workspace import read_json, sync_directory, write_json

FORMAT = 1
SET = "set.json"
LOCK_SECONDS = 10.0
CHUNK = 1 << 20


@dataclass(frozen=True)
class DeployedSet:
    """One immutable set."""

    set_id: str
    path: Path
    meta: dict[str, Any]
    current: bool = False


class Registry:
    """The deployed sets under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._sets = self.root / "sets"
        self._incoming = self.root / "incoming"
        self._pointer = self.root / "current.json"
        self._journal = self.root / "journal.jsonl"

    def current(self) -> DeployedSet | None:
        """The set that is current now, or None if nothing was ever deployed.

        Raises:
            UsageError: the pointer names a set that is not there or whose set.json is damaged.
        """
        pointer = read_json(self._pointer)
        if not isinstance(pointer, dict):
            return None
        path = self._sets / str(pointer["set_id"])
        meta = read_json(path / SET)
        if not isinstance(meta, dict):
            raise UsageError(
                "the current set is missing or damaged",
                where=str(path),
                fix="run `vnquant registry verify`, then `vnquant registry rollback`",
            )
        return DeployedSet(path.name, path, meta, current=True)

    def list(self) -> list[DeployedSet]:
        """All sets, newest first."""
        pointer = read_json(self._pointer) or {}
        return [
            DeployedSet(p.name, p, read_json(p / SET) or {}, p.name == pointer.get("set_id"))
            for p in sorted(self._sets.glob("*"), reverse=True)
            if p.is_dir()
        ]

    def promote(
        self,
        source: Path,
        meta: dict[str, Any],
        gate: dict[str, Any],
        *,
        force: bool = False,
        force_reason: str | None = None,
    ) -> str:
        """Copy a folder of finished files into a new set and make it current.

        The same content as an existing set makes no second copy.

        Args:
            meta: facts to keep with the set (run id, spec digest, ...).
            gate: ``passed`` and ``reason`` of the gate's decision.
            force: promote although the gate refused; recorded with ``force_reason``.

        Returns:
            The id of the set that is now current.

        Raises:
            UsageError: the gate refused and force was not given, or the folder cannot be a set.
            RetryableError: the registry is locked or the disk is full; nothing changed.
        """
        if not gate.get("passed") and not force:
            raise UsageError(
                f"the gate refused: {gate.get('reason', 'no reason given')}",
                where="registry",
                fix="keep the current set, or promote anyway with --force",
            )
        forced = force and not gate.get("passed")
        with self._lock():
            self._sweep()
            copy, files = self._copy(source)
            content = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
            existing = next((s for s in self.list() if s.meta.get("content") == content), None)
            if existing is not None:
                shutil.rmtree(copy)
                set_id = existing.set_id
            else:
                set_id = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{content[:8]}"
                record = {
                    "format": FORMAT,
                    **meta,
                    "set_id": set_id,
                    "created": _now(),
                    "content": content,
                    "gate": gate,
                    "forced": forced,
                    "force_reason": force_reason if forced else None,
                    "files": files,
                }
                write_json(copy / SET, record)
                sync_directory(copy)
                self._sets.mkdir(parents=True, exist_ok=True)
                copy.rename(self._sets / set_id)
                sync_directory(self._sets)
            self._switch("promote", set_id, forced=forced, reason=force_reason or gate.get("reason"))
            return set_id

    def rollback(self, to: str | None = None) -> str:
        """Make an earlier set current again; its files are the very same bytes.

        Args:
            to: a set id; None: the set that was current before the present one.

        Raises:
            UsageError: there is nothing to go back to, or that set is damaged.
        """
        with self._lock():
            now = (read_json(self._pointer) or {}).get("set_id")
            if to is None:
                to = self._before(now)
            known = {s.set_id for s in self.list()}
            if to not in known or to == now:
                why = "is current already" if to == now and to else "is not among the deployed sets"
                raise UsageError(
                    f"set {to} {why}" if to else "there is no earlier set to return to",
                    where="registry rollback",
                    fix="see `vnquant registry list`",
                )
            if problems := self._check(self._sets / str(to)):
                raise UsageError(
                    f"set {to} is damaged ({problems[0]})",
                    where="registry rollback",
                    fix="choose another set with --to",
                )
            self._switch("rollback", str(to), forced=False, reason=None)
            return str(to)

    def verify(self, set_id: str | None = None) -> list[str]:
        """Recompute every checksum; returns the problems found, one sentence each."""
        if set_id is not None and not (self._sets / set_id).is_dir():
            return [f"{set_id}: no such set"]
        paths = [self._sets / set_id] if set_id else sorted(self._sets.glob("*"))
        problems = [f"{p.name}: {problem}" for p in paths for problem in self._check(p)]
        pointer = read_json(self._pointer)
        if self._pointer.exists() and not isinstance(pointer, dict):
            problems.append("current.json: unreadable")
        elif pointer and not (self._sets / str(pointer.get("set_id")) / SET).exists():
            problems.append(f"current.json: names {pointer.get('set_id')}, which is not there")
        return problems

    def journal(self) -> list[dict[str, Any]]:
        """Every promotion and rollback, oldest first; a line cut short by a kill is skipped."""
        entries = []
        if self._journal.exists():
            for line in self._journal.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    entries.append(json.loads(line))
        return entries

    def _before(self, now: str | None) -> str | None:
        """The set that ``now`` displaced when it was last promoted."""
        for entry in reversed(self.journal()):
            if entry["to"] == now and entry["action"] == "promote":
                return str(entry["from"]) if entry["from"] else None
        return None

    def _switch(self, action: str, set_id: str, *, forced: bool, reason: str | None) -> None:
        before = (read_json(self._pointer) or {}).get("set_id")
        if before == set_id:
            before = self._before(set_id)
        entry = {
            "time": _now(),
            "action": action,
            "from": before,
            "to": set_id,
            "forced": forced,
            "reason": reason,
        }
        # Journal first: after a kill in between, it names a set that never became current, which
        # is harmless; a switch without a record could not be undone by `rollback`.
        with self._journal.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        write_json(self._pointer, {"set_id": set_id, "since": entry["time"]})

    def _copy(self, source: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
        """Copy into ``incoming``, hashing on the way; everything is on disk when it returns."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(dir=self._incoming))
        files: dict[str, dict[str, Any]] = {}
        try:
            for path in sorted(source.rglob("*")):
                name = path.relative_to(source).as_posix()
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    raise UsageError(
                        f"{name} is not a plain file", where=str(source), fix="copy the file itself"
                    )
                if name == SET:
                    raise UsageError(f"{SET} is a reserved name", where=str(source), fix="rename it")
                if path.is_dir():
                    (target / name).mkdir()
                else:
                    files[name] = _copy_file(path, target / name)
            for folder in (target, *(p for p in target.rglob("*") if p.is_dir())):
                sync_directory(folder)
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise RetryableError(
                    "no space left for a new set; the current set stays",
                    where=str(self.root),
                    fix="free some space and run again",
                ) from error
            raise
        except UsageError:
            shutil.rmtree(target, ignore_errors=True)
            raise
        if not files:
            shutil.rmtree(target)
            raise UsageError("holds no files", where=str(source), fix="train before deploying")
        return target, files

    def _sweep(self) -> None:
        for leftover in self._incoming.glob("*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _check(self, path: Path) -> list[str]:
        meta = read_json(path / SET)
        if not isinstance(meta, dict) or not isinstance(meta.get("files"), dict):
            return [f"{SET} is missing or unreadable"]
        problems = []
        for name, expected in meta["files"].items():
            try:
                content = (path / name).read_bytes()
            except OSError as error:
                problems.append(f"{name} cannot be read ({error.strerror})")
                continue
            if len(content) != expected["bytes"]:
                problems.append(f"{name} has {len(content)} bytes instead of {expected['bytes']}")
            elif hashlib.sha256(content).hexdigest() != expected["sha256"]:
                problems.append(f"{name} does not match its checksum")
        present = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
        problems += [f"{n} does not belong to the set" for n in sorted(present - {SET, *meta["files"]})]
        return problems

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as handle:
            until = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise RetryableError(
                            "another process is changing the registry",
                            where=str(self.root),
                            fix="try again when it has finished",
                        ) from None
                    time.sleep(0.05)
            yield


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _copy_file(source: Path, target: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return {"sha256": digest.hexdigest(), "bytes": size}
