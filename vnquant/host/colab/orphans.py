"""Machines that cost money although no launch needs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vnquant.host.colab.command import Colab
from vnquant.host.colab.session import release
from vnquant.host.launch import settle
from vnquant.host.targets import Record
from vnquant.workspace import read_json


@dataclass(frozen=True)
class Orphan:
    """A machine that is held, and the session through which it can be given back."""

    colab: Colab
    endpoint: str
    hardware: str

    def __str__(self) -> str:
        return f"{self.hardware} machine {self.endpoint} (session {self.colab.name})"

    def release(self) -> bool:
        """Give it back; returns whether it is known to be gone."""
        return release(self.colab, self.endpoint)


def orphans(workspace: Path) -> list[Orphan]:
    """Machines that launches of this workspace have left behind; none while Colab is away.

    The command writes a session file the moment a machine is granted. So one is found even if
    its controller was killed before it could write anything, or if the run was deleted since.
    """
    found = []
    known: dict[str, str] | None = None
    for state in sorted((workspace / "colab").glob("vnquant-*.json")):
        colab = Colab(state.stem, state)
        record = _record(workspace, state.stem.removeprefix("vnquant-"))
        endpoint = colab.endpoint() or (record or {}).get("endpoint")
        if endpoint is None or (record is not None and _needed(record)):
            continue
        known = colab.machines() if known is None else known
        if known is None:
            return []
        if endpoint in known:
            found.append(Orphan(colab, endpoint, known[endpoint]))
    return found


def _record(workspace: Path, launch: str) -> Record | None:
    for path in (workspace / "runs").glob(f"*/launches/{launch}.json"):
        record = read_json(path)
        if isinstance(record, dict):
            return record
    return None


def _needed(record: Record) -> bool:
    return "ended" not in record and settle(record).status in ("running", "unknown")
