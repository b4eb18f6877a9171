"""What every run of a workspace is doing, read from its own records."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vnquant.events import read_events
from vnquant.host.launch import settle
from vnquant.host.records import launches
from vnquant.spec import load_spec
from vnquant.workspace import read_json


def runs(workspace: Path) -> list[dict[str, Any]]:
    """One row for each run, the one with the newest sign of life first."""
    rows = [row(p.parent) for p in (workspace / "runs").glob("*/spec.json")]
    return sorted(rows, key=lambda r: str(r["last_event"] or ""), reverse=True)


def row(run: Path) -> dict[str, Any]:
    """State, stage and progress of a run, and where it executes."""
    spec = load_spec(run / "spec.json")
    events = read_events(run / "events.jsonl")
    state: str | None = None
    every = launches(run)
    for record in every:
        if "ended" in record and record.get("cleared"):
            continue
        now = settle(record)
        if "ended" not in record:
            state = "running" if now.status == "running" else state or now.status
    newest = every[-1] if every else {}
    stages = [e for e in events if e["event"] in ("stage_started", "stage_finished")]
    epochs = [e for e in events if e["event"] == "epoch"]
    publishing = read_json(run.parent.parent / "publish" / "status.json") or {}
    share, left = _progress(run) if state == "running" else (None, None)
    return {
        "run": run.name,
        "symbols": len(spec.symbols),
        "state": state or _ended(run, newest),
        "target": newest.get("target"),
        "launch": newest.get("launch"),
        "stage": stages[-1]["stage"] if stages else None,
        "progress": share,
        "seconds_left": left,
        "epoch": epochs[-1]["epoch"] if epochs else None,
        "epochs": spec.training.epochs,
        "last_event": events[-1]["time"] if events else None,
        "exit_code": newest.get("exit_code"),
        "unpublished": publishing.get("backlog"),
    }


def _progress(run: Path) -> tuple[float | None, float | None]:
    """Share of the stage that is done, and seconds that the rest of it will take."""
    tick = read_json(run / "progress.json")
    if not isinstance(tick, dict) or not tick.get("total"):
        return None, None
    left = tick["seconds_left"]
    if left is not None:
        left = max(0.0, left - (time.time() - tick["time"]))
    return tick["done"] / tick["total"], left


def _ended(run: Path, record: dict[str, Any]) -> str:
    if record.get("exit_code") in (0, 4) or (run / "forecast" / "DONE.json").exists():
        return "finished"
    if record.get("exit_code") in (130, 143):
        return "stopped"
    if record:
        return "failed" if record.get("exit_code") is not None else "lost"
    return "unfinished" if (run / "events.jsonl").exists() else "new"


HEAD = (
    *("run", "state", "target", "stage", "done", "left", "epoch", "symbols", "exit"),
    "last sign of life (UTC)",
)


def cells(row: dict[str, Any]) -> list[str]:
    """A row as text, one word for each of `HEAD`. ``left``: of the stage, as h:mm:ss."""
    epoch = f"{row['epoch']}/{row['epochs']}" if row["epoch"] is not None else None
    share = None if row["progress"] is None else f"{row['progress']:.0%}"
    seconds = row["seconds_left"]
    left = None if seconds is None else str(dt.timedelta(seconds=round(seconds)))
    seen = str(row["last_event"])[:19].replace("T", " ") if row["last_event"] else None
    found = [row["run"], row["state"], row["target"], row["stage"], share, left, epoch]
    found += [row["symbols"], row["exit_code"], seen]
    return ["-" if c is None else str(c) for c in found]


def to_text(rows: Sequence[dict[str, Any]]) -> str:
    """A table for a terminal."""
    table = [list(HEAD), *map(cells, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in table]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def publisher(workspace: Path) -> str | None:
    """One sentence about what the last publisher has not saved yet; None if there was none."""
    known = read_json(workspace / "publish" / "status.json")
    if not isinstance(known, dict):
        return None
    count, size = known["backlog"], known["backlog_bytes"] / 1e6
    what = f"{count} files, {size:.1f} MB" if count else "nothing"
    why = f" ({known['last_error']})" if known.get("last_error") else ""
    return f"To be saved on {known['store']}: {what}{why}, as of {known['time']}."
