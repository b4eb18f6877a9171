"""Records of launches: one JSON file each, in the folder of its run."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from vnquant.host.targets import Record
from vnquant.workspace import read_json, write_json


def folder(record: Record) -> Path:
    """Where a launch keeps its record, its output and its exit code."""
    return Path(record["workspace"], "runs", record["run"], "launches")


def save(record: Record) -> None:
    write_json(folder(record) / f"{record['launch']}.json", record)


def refreshed(record: Record) -> Record:
    """The record with what other programs have added to it since it was read."""
    kept = read_json(folder(record) / f"{record['launch']}.json")
    if isinstance(kept, dict):
        record |= kept
    return record


def launches(run: Path) -> list[Record]:
    """The records of a run's launches, oldest first."""
    found = [read_json(p) for p in (run / "launches").glob("*.json")]
    records = [r for r in found if isinstance(r, dict) and "launch" in r]
    return sorted(records, key=lambda r: (str(r["started"]), r.get("attempt", 1)))


def now() -> str:
    """UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def age(record: Record) -> float:
    """Seconds since a launch was begun."""
    began = dt.datetime.fromisoformat(str(record["started"]))
    return (dt.datetime.now(dt.UTC) - began).total_seconds()
