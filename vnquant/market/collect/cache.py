"""Answers kept for a while, so that an interrupted symbol does not ask everything again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from vnquant.workspace import read_json, write_bytes

LIFETIME = 6 * 3600.0
"""Seconds. Histories are re-based at most once a day, and the caller checks for that besides."""


class Replies:
    """Parsed answers of one service on disk, in a folder for each symbol.

    A group is forgotten as soon as its bars are stored, or turn out to be unusable, so what lies
    here belongs to symbols that were interrupted.

    Args:
        folder: made when the first answer is kept.
        occasion: answers of another occasion (service, last settled session) are not found.
    """

    def __init__(self, folder: Path, occasion: str) -> None:
        self.folder = folder
        self.occasion = occasion

    def _path(self, group: str, key: str) -> Path:
        name = hashlib.sha256(f"{self.occasion}\n{key}".encode()).hexdigest()[:32]
        return self.folder / (group or "all") / f"{name}.json"

    def find(self, group: str, key: str) -> Any:
        """The answer kept under this key; None if there is none, or it is too old or damaged."""
        path = self._path(group, key)
        try:
            age = time.time() - path.stat().st_mtime
        except OSError:
            return None
        return read_json(path) if 0 <= age < LIFETIME else None

    def keep(self, group: str, key: str, answer: Any) -> None:
        write_bytes(self._path(group, key), json.dumps(answer).encode())

    def forget(self, group: str) -> None:
        shutil.rmtree(self.folder / (group or "all"), ignore_errors=True)
