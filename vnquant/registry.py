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
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vnquant.errors import DataError, RetryableError, UsageError
from vnquant.registry_files import FORMAT, FULL, SET, check_set, copy_files, digest
from vnquant.workspace import read_json as read_json_file
from vnquant.workspace import sync_directory, write_json

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
        try:
            json.dumps([meta, gate], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"meta is no JSON ({error})", where="registry", fix="give plain values"
            ) from error
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
                    self._remove(target)
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
            to: a set id; None: the set current before the present one, further back each time.

        Raises:
            UsageError: there is nothing to go back to, or that set is damaged.
        """
        if not self.root.is_dir():
            raise UsageError("there is no earlier set to return to", where="registry rollback")
        with self._lock():
            now = self._current_id()
            if to is None:
                to = next(iter(self._earlier(now)), None)
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
        if set_id is not None and set_id not in {s.set_id for s in self.sets()}:
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

    def prune(self, keep: int | None = None) -> list[str]:
        """Delete old sets for good; returns their ids. A reader of one of them may fail.

        Args:
            keep: how many to keep beside the current one, in the order in which `rollback` would
                return to them, then newest first; None: all.

        Raises:
            UsageError: keep is negative.
            DataError: the pointer is damaged, so it is not known which set is current.
        """
        if keep is not None and keep < 0:
            raise UsageError(f"keep {keep} is below 0", where="registry", fix="give 0 or more")
        with self._lock():
            self._sweep()
            now = (self._record() or {}).get("to")
            order = dict.fromkeys([*self._earlier(now), *(s.set_id for s in self.sets())])
            gone = [name for name in order if name != now][len(order) if keep is None else keep :]
            for name in gone:
                self._remove(self._sets / name)
            return gone

    def journal(self) -> list[Record]:
        """Every promotion and rollback, oldest first; a line cut short by a kill is skipped."""
        entries: list[Record] = []
        if self._journal.exists():
            for line in self._journal.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                    entries += [entry] if _is_record(entry) else []
        latest = read_json(self._pointer)
        if _is_record(latest) and latest not in entries[-1:]:
            entries.append(latest)
        return entries

    def _earlier(self, now: str | None) -> list[str]:
        """The sets that were current before ``now`` and are still there, latest first.

        Going back takes sets off the end, so that going back again never returns to them.
        """
        past: list[str] = []
        for entry in self.journal():
            to = str(entry["to"])
            if entry["action"] == "rollback" and to in past[:-1]:
                past.pop()
                while past[-1] != to:
                    past.pop()
            elif past[-1:] != [to]:
                past.append(to)
        known = {s.set_id for s in self.sets()}
        return [name for name in reversed(past[:-1]) if name in known and name != now]

    def _switch(self, action: str, set_id: str, *, forced: bool, reason: str | None) -> None:
        record = {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
            "action": action,
            "from": self._current_id(),
            "to": set_id,
            "forced": forced,
            "reason": reason,
        }
        # The record that is about to leave the pointer must be in the journal first.
        self._catch_up()
        write_json(self._pointer, record)
        with contextlib.suppress(OSError):
            self._catch_up()  # the switch is made; the next change adds its line

    def _catch_up(self) -> None:
        """Bring the journal up to the pointer, by a whole line or not at all."""
        known = self._journal.read_bytes() if self._journal.exists() else b""
        whole = known[: known.rfind(b"\n") + 1]
        latest = self.journal()[-1:]
        # Compared as a whole, not counted: a damaged line must not hide a missing one.
        text = b"" if _line(latest).strip() in whole.splitlines() else _line(latest)
        if not text and len(whole) == len(known):
            return
        try:
            with self._journal.open("r+b" if known else "wb") as handle:
                handle.truncate(len(whole))  # a torn line would swallow the next one
                handle.seek(len(whole))
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self._journal, len(whole))
            raise

    def _remove(self, path: Path) -> None:
        """Out of ``sets`` in one step, so that a kill leaves no half-deleted set there."""
        if path.is_dir():
            hidden = Path(tempfile.mkdtemp(dir=self._incoming))
            path.rename(hidden / path.name)
            sync_directory(self._sets)
            shutil.rmtree(hidden, ignore_errors=True)

    def _sweep(self) -> None:
        for leftover in self._incoming.glob("*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for part in self.root.glob(".*.part"):
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with self._locked():
                yield
        except OSError as error:
            if error.errno in FULL:
                raise RetryableError(
                    "no space left; nothing changed", where=str(self.root), fix="free some space"
                ) from error
            raise UsageError(
                f"cannot be read or written ({error.strerror})",
                where=str(error.filename or self.root),
                fix="check the owner and the permissions",
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
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


def read_json(path: Path) -> Any:
    """As in the workspace; JSON nested without end is damage too, and a pipe is no file."""
    try:
        return read_json_file(path) if path.is_file() else None
    except RecursionError:
        return None


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and {"action", "from", "to"} <= value.keys()


def _line(records: list[Record]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()
