"""What a run has cost so far, over all its machines, and whether that is enough."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from vnquant.host.colab.session import session, usage
from vnquant.host.records import launches
from vnquant.host.targets import Record


def hours(record: Record) -> float:
    """How long all launches of the record's run have held a machine."""
    total = 0.0
    run = Path(record["workspace"], "runs", record["run"])
    for launch in launches(run):
        if "allocated" in launch:
            end = launch.get("released") or launch.get("ended")
            until = dt.datetime.fromisoformat(end) if end else dt.datetime.now(dt.UTC)
            total += (until - dt.datetime.fromisoformat(launch["allocated"])).total_seconds()
    return total / 3600


def over_limit(record: Record) -> str:
    """The limit that has been reached, in words; empty if none has.

    Units are the balance that has gone since the run's first machine was granted. Other machines
    of the account use up the same balance, so this may stop early, but not late.
    """
    spec = record["spec"]
    if (most := spec.get("max_hours")) is not None and hours(record) >= most:
        return f"the limit of {most:g} hours is used up"
    if (most := spec.get("max_units")) is not None:
        workspace = Path(record["workspace"])
        every = launches(workspace / "runs" / record["run"])
        first = next((r["balance"] for r in every if r.get("balance") is not None), None)
        left = usage(session(workspace, record["launch"]))
        if first is not None and left is not None and first - left[0] >= most:
            return f"the limit of {most:g} compute units is used up"
    return ""
