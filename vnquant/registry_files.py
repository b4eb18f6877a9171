"""The files of a deployed set: copied with their hashes, and checked against them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from vnquant.errors import RetryableError, UsageError
from vnquant.workspace import read_json, sync_directory

FORMAT = 1
SET = "set.json"
CHUNK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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


def copy_files(source: Path, incoming: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Copy into ``incoming``, hashing on the way; everything is on disk when it returns."""
    incoming.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() or not source.is_dir():
        raise UsageError("is not a folder", where=str(source), fix="give the folder itself")
    target = Path(tempfile.mkdtemp(dir=incoming))
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
        if error.errno in FULL:
            raise RetryableError(
                "no space left for a new set; the current set stays",
                where=str(incoming),
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


def check_set(path: Path) -> list[str]:
    try:
        meta = read_json(path / SET) if (path / SET).is_file() else None
    except RecursionError:  # JSON nested without end
        meta = None
    if not isinstance(meta, dict) or not isinstance(meta.get("files"), dict):
        return [f"{SET} is missing or unreadable"]
    facts = {k: v for k, v in meta.items() if k != "sha256"}
    canonical = json.dumps({**facts, "sha256": digest(facts)}, indent=2, sort_keys=True) + "\n"
    if (path / SET).read_text(encoding="utf-8", errors="replace") != canonical:
        return [f"{SET} does not match its own checksum"]
    if meta.get("set_id") != path.name:
        return [f"{SET} is that of another set"]
    problems = []
    present = {p.relative_to(path).as_posix(): p.lstat().st_mode for p in path.rglob("*")}
    for name, expected in meta["files"].items():
        if name in present and not stat.S_ISREG(present[name]):
            problems.append(f"{name} is not a plain file")
            continue
        try:
            content = (path / name).read_bytes()
        except OSError as error:
            problems.append(f"{name} cannot be read ({error.strerror})")
            continue
        if len(content) != expected["bytes"]:
            problems.append(f"{name} has {len(content)} bytes instead of {expected['bytes']}")
        elif hashlib.sha256(content).hexdigest() != expected["sha256"]:
            problems.append(f"{name} does not match its checksum")
    ours = {SET, *meta["files"]}
    extra = sorted(n for n, mode in present.items() if not stat.S_ISDIR(mode) and n not in ours)
    return problems + [f"{name} does not belong to the set" for name in extra]
