"""Deployed sets: promoted whole or not at all, kept, verified, and rolled back byte for byte.

A set is an immutable folder; which one is current is one small file replaced atomically. A reader
resolves that file once and then reads only inside its set, so it never sees half a deployment.
Layout::

    registry/sets/<set id>/     model files and set.json (names, sizes, sha256 of every file)
    registry/incoming/          copies in progress; swept by the next promotion
    registry/current.json       which set is current, and the record of how it became so
    registry/journal.jsonl      every earlier promotion and rollback, appended

The pointer carries its own record, so the switch is one atomic write: a kill or a full disk before
the journal grows loses nothing, and the next change catches the journal up.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vnquant.errors import DataError, RetryableError, UsageError
from vnquant.registry_files import FORMAT, FULL, SET, check_set, copy_files, digest
from vnquant.workspace import read_json, sync_directory, write_json

LOCK_SECONDS = 10.0
SET_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}(-\d+)?")

Record = dict[str, Any]


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
            DataError: the pointer or the set it names is missing or damaged.
        """
        record = self._record()
        if record is None:
            return None
        path = self._sets / record["to"]
        meta = read_json(path / SET)
        if not isinstance(meta, dict):
            raise DataError(
                "the current set is missing or damaged",
                where=str(path),
                fix="run `vnquant registry verify`, then `vnquant registry rollback --to SET`",
            )
        return DeployedSet(path.name, path, meta, current=True)

    def _record(self) -> Record | None:
        """The pointer's record, None where there is no pointer."""
        if not self._pointer.exists():
            return None
        record = read_json(self._pointer)
        if not isinstance(record, dict) or not SET_ID.fullmatch(str(record.get("to"))):
            raise DataError(
                "cannot be read",
                where=str(self._pointer),
                fix="choose a set again: `vnquant registry list`, then `rollback --to SET`",
            )
        return record

    def _current_id(self) -> str | None:
        """The current set's id; a damaged pointer names none."""
        try:
            record = self._record()
        except DataError:
            return None
        return str(record["to"]) if record else None

    def sets(self) -> list[DeployedSet]:
        """All sets, newest first."""
        now = self._current_id()
        found = [
            DeployedSet(p.name, p, meta if isinstance(meta, dict) else {}, p.name == now)
            for p in self._sets.glob("*")
            for meta in (read_json(p / SET),)
            if p.is_dir()
        ]
        return sorted(found, key=lambda s: (str(s.meta.get("created")), s.set_id), reverse=True)

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
        reason = force_reason if forced else gate.get("reason")
        with self._lock():
            self._sweep()
            copy, files = copy_files(source, self._incoming)
            content = digest(files)
            existing = self._whole_set_of(content)
            if existing is not None:
                shutil.rmtree(copy)
                self._switch("promote", existing, forced=forced, reason=reason)
                return existing
            set_id = self._free_id(content)
            facts = {
                "format": FORMAT,
                **meta,
                "set_id": set_id,
                "created": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
                "content": content,
                "gate": gate,
                "forced": forced,
                "force_reason": force_reason if forced else None,
                "files": files,
            }
            target = self._sets / set_id
            try:
                write_json(copy / SET, {**facts, "sha256": digest(facts)})
                sync_directory(copy)
                self._sets.mkdir(parents=True, exist_ok=True)
                copy.rename(target)
                sync_directory(self._sets)
                self._switch("promote", set_id, forced=forced, reason=reason)
            except BaseException:
                # Unless the switch was made, leave everything as it was.
                shutil.rmtree(copy, ignore_errors=True)
                if self._current_id() != set_id:
                    shutil.rmtree(target, ignore_errors=True)
                raise
            return set_id

    def _whole_set_of(self, content: str) -> str | None:
        """An undamaged set with this content, if there is one."""
        for found in self.sets():
            if found.meta.get("content") == content and not check_set(found.path):
                return found.set_id
        return None

    def _free_id(self, content: str) -> str:
        base = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{content[:8]}"
        names = [base, *(f"{base}-{n}" for n in range(2, 100))]
        return next(n for n in names if not (self._sets / n).exists())

    def rollback(self, to: str | None = None) -> str:
        """Make an earlier set current again; its files are the very same bytes.

        Args:
            to: a set id; None: the set that was current before the present one.

        Raises:
            UsageError: there is nothing to go back to, or that set is damaged.
        """
        with self._lock():
            now = self._current_id()
            if to is None:
                to = self._before(now)
            known = {s.set_id for s in self.sets()}
            if to not in known or to == now:
                why = "is current already" if to == now and to else "is not among the deployed sets"
                raise UsageError(
                    f"set {to} {why}" if to else "there is no earlier set to return to",
                    where="registry rollback",
                    fix="see `vnquant registry list`",
                )
            if problems := check_set(self._sets / str(to)):
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
        problems = [f"{p.name}: {problem}" for p in paths for problem in check_set(p)]
        try:
            record = self._record()
        except DataError:
            return [*problems, "current.json: unreadable"]
        if record and not (self._sets / record["to"] / SET).exists():
            problems.append(f"current.json: names {record['to']}, which is not there")
        return problems

    def journal(self) -> list[Record]:
        """Every promotion and rollback, oldest first; a line cut short by a kill is skipped."""
        entries: list[Record] = []
        if self._journal.exists():
            for line in self._journal.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    entries.append(json.loads(line))
        latest = read_json(self._pointer)
        if isinstance(latest, dict) and "to" in latest and latest not in entries[-1:]:
            entries.append(latest)
        return entries

    def _before(self, now: str | None) -> str | None:
        """The set that ``now`` displaced when it was last promoted."""
        for entry in reversed(self.journal()):
            if entry["to"] == now and entry["action"] == "promote":
                return str(entry["from"]) if entry["from"] else None
        return None

    def _switch(self, action: str, set_id: str, *, forced: bool, reason: str | None) -> None:
        before = self._current_id()
        if before == set_id:
            before = self._before(set_id)
        record = {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
            "action": action,
            "from": before,
            "to": set_id,
            "forced": forced,
            "reason": reason,
        }
        # The record that is about to leave the pointer must be in the journal first.
        self._catch_up()
        write_json(self._pointer, record)
        self._catch_up()

    def _catch_up(self) -> None:
        """Bring the journal up to the pointer; a full disk only postpones that."""
        known = self._journal.read_bytes() if self._journal.exists() else b""
        whole = known[: known.rfind(b"\n") + 1]
        entries = self.journal()
        missing = entries[whole.count(b"\n") :] if len(entries) > whole.count(b"\n") else []
        text = "".join(json.dumps(entry) + "\n" for entry in missing).encode()
        if not text and len(whole) == len(known):
            return
        try:
            with self._journal.open("r+b" if known else "wb") as handle:
                handle.truncate(len(whole))  # a torn line would swallow the next one
                handle.seek(len(whole))
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            if error.errno not in FULL:
                raise
            with contextlib.suppress(OSError):
                os.truncate(self._journal, len(whole))

    def _sweep(self) -> None:
        for leftover in self._incoming.glob("*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for part in self.root.glob(".*.part"):
            part.unlink(missing_ok=True)

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
