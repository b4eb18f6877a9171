"""What came of a job, in figures and in a few lines for people."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from vnquant.host.jobs import Job
from vnquant.workspace import DONE, read_json

LOSING = ("ingest", "features", "train")
"""Stages that may lose symbols."""


def result(run: Path) -> dict[str, Any]:
    """Figures of a run, as far as it is; everything is JSON-able.

    Returns:
        ``done`` and ``failed`` (symbol to reason), ``accuracy`` (share of directions right on the
        test part), ``deployed`` (the set's id, or None), ``reason`` (of the gate).
    """
    failed: dict[str, str] = {}
    for stage in LOSING:
        failed |= _marker(run, stage).get("failed") or {}
    verdict = read_json(run / "evaluate" / "verdict.json") or {}
    pooled: dict[str, Any] = next(iter(verdict.get("comparison", ())), {})
    deploy = _marker(run, "deploy")
    return {
        "done": len(_marker(run, "train").get("symbols", ())),
        "failed": failed,
        "accuracy": pooled.get("accuracy"),
        "deployed": deploy.get("set"),
        "reason": deploy.get("gate", {}).get("reason"),
    }


def _marker(run: Path, stage: str) -> dict[str, Any]:
    marker = read_json(run / stage / DONE)
    return marker if isinstance(marker, dict) else {}


def title(job: Job) -> str:
    """One line: whether it went well."""
    ends = {"finished": "finished", "stopped": "was stopped"}
    return f"vnquant: {job.mode} cycle {ends.get(job.state, 'failed')} (run {job.run})"


def text(job: Job, before: Job | None) -> str:
    """A few lines: symbols, accuracy against the job before, deployment, cost, time."""
    got = job.result
    failed = got.get("failed") or {}
    lines = [f"Symbols: {got.get('done', 0)} of {len(job.symbols)} done, {len(failed)} failed"]
    lines += [f"  {symbol}: {why}" for symbol, why in sorted(failed.items())[:5]]
    if len(failed) > 5:
        lines.append(f"  and {len(failed) - 5} more")
    lines.append(_accuracy(got.get("accuracy"), before))
    if got.get("deployed"):
        lines.append(f"Deployed: set {got['deployed']}")
    elif got.get("reason"):
        lines.append(f"Not deployed, the set before stays: {got['reason']}")
    cost = [f"{value:.2f} {name}" for name, value in sorted(job.cost.items())]
    lines.append(f"Cost: {', '.join(cost) or 'none'}")
    lines.append(f"Time: {dt.timedelta(seconds=round(job.seconds))}")
    if job.note:
        lines.append(f"Note: {job.note}")
    if job.state not in ("finished", "stopped"):
        lines.append(f"It ended in phase {job.phase} with exit code {job.exit_code}; the same "
                     "command goes on from there.")  # fmt: skip
    return "\n".join(lines) + "\n"


def _accuracy(now: float | None, before: Job | None) -> str:
    if now is None:
        return "Accuracy: not judged"
    last = None if before is None else before.result.get("accuracy")
    if last is None or before is None:
        return f"Accuracy: {now:.2%} (nothing before it to compare with)"
    more = (now - last) * 100
    return f"Accuracy: {now:.2%}, {more:+.2f} points against {last:.2%} of {before.started[:10]}"
