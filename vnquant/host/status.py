"""What every run of a workspace is doing, read from its own records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vnquant.events import read_events
from vnquant.host.launch import launches, settle
from vnquant.spec import load_spec
from vnquant.workspace import read_json


def runs(workspace: Path) -> list[dict[str, Any]]:
    """One row for each run, the one with the newest sign of life first."""
    rows = [row(p.parent) for p in (workspace / "runs").glob("*/spec.json")]
    return sorted(rows, key=lambda r: str(r["last_event"] or ""), reverse=True)


def row(run: Path) -> dict[str, Any]:
    """State, stage and epoch of a run, and where it executes."""
    spec = load_spec(run / "spec.json")
    events = read_events(run / "events.jsonl")
    open_ones = [r for r in launches(run) if "ended" not in r]
    state: str | None = None
    target = None
    for record in open_ones:
        now = settle(record)
        target = record["target"]
        state = "running" if now.status == "running" else state or now.status
    every = launches(run)
    if state not in ("running", "unknown"):
        ended = every[-1] if every else {}
        target = ended.get("target", target)
        state = _ended(run, ended)
    stages = [e for e in events if e["event"] in ("stage_started", "stage_finished")]
    epochs = [e for e in events if e["event"] == "epoch"]
    publishing = read_json(run.parent.parent / "publish" / "status.json") or {}
    return {
        "run": run.name,
        "symbols": len(spec.symbols),
        "state": state,
        "target": target,
        "stage": stages[-1]["stage"] if stages else None,
        "epoch": epochs[-1]["epoch"] if epochs else None,
        "epochs": spec.training.epochs,
        "last_event": events[-1]["time"] if events else None,
        "exit_code": every[-1].get("exit_code") if every else None,
        "unpublished": publishing.get("backlog"),
    }


def _ended(run: Path, record: dict[str, Any]) -> str:
    if record.get("exit_code") in (0, 4) or (run / "forecast" / "DONE.json").exists():
        return "finished"
    if record.get("exit_code") in (130, 143):
        return "stopped"
    if record:
        return "failed" if record.get("exit_code") is not None else "lost"
    return "unfinished" if (run / "events.jsonl").exists() else "new"


def to_text(rows: list[dict[str, Any]]) -> str:
    """A table for a terminal."""
    head = (
        "run",
        "state",
        "target",
        "stage",
        "epoch",
        "symbols",
        "exit",
        "last sign of life (UTC)",
    )
    table = [head]
    for r in rows:
        epoch = f"{r['epoch']}/{r['epochs']}" if r["epoch"] is not None else "-"
        code = "-" if r["exit_code"] is None else str(r["exit_code"])
        seen = str(r["last_event"] or "-")[:19].replace("T", " ")
        cells = (r["run"], r["state"], r["target"] or "-", r["stage"] or "-", epoch)
        table.append((*cells, str(r["symbols"]), code, seen))
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in table]
    return "\n".join(line.rstrip() for line in lines) + "\n"
