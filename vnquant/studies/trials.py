"""The trials of a study in its folder: planned, carried out once, kept as rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vnquant.errors import DataError, PartialFailure, UsageError
from vnquant.events import Events, Listener
from vnquant.spec import RunSpec
from vnquant.stages import run_stages
from vnquant.stages.context import Context, Options
from vnquant.studies import figures
from vnquant.studies.definition import Reading, Study, spec_of
from vnquant.workspace import Workspace, locked, read_json, write_json, written_aside

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
ROW, FORECASTS = "row.json", "forecasts.parquet"


@dataclass(frozen=True)
class Trial:
    """A variant of a study, with everything that decides its result."""

    name: str
    spec: RunSpec
    reading: Reading = "plain"

    @property
    def key(self) -> str:
        """Names its folder; the same for whatever gives the same result."""
        return self.spec.run_id + ("" if self.reading == "plain" else f"-{self.reading}")


def folder_of(workspace: Workspace, study: Study, base: RunSpec) -> Path:
    """Where the study is kept: another question or base spec has another folder."""
    digest = hashlib.sha256(f"{study.model_dump_json()}{base.digest}".encode()).hexdigest()
    return workspace.path / "studies" / f"{study.name}-{digest[:12]}"


def planned(study: Study, base: RunSpec) -> list[Trial]:
    """The trials of the variants, in their order; what comes to the same is one, the first.

    Raises:
        UsageError: a variant does not fit the spec.
    """
    found: dict[str, Trial] = {}
    for v in study.variants:
        spec = spec_of(base, v.overrides, f"study {study.name}, {v.name}")
        trial = Trial(v.name, spec, v.reading)
        found.setdefault(trial.key, trial)
    return list(found.values())


def repeated(study: Study, base: RunSpec) -> list[Trial]:
    """The first variant's trial with the seeds that follow its own, one for each repeat."""
    first, *_ = planned(study, base)
    found = []
    for more in range(1, study.repeats + 1):
        seed = first.spec.training.seed + more
        name = f"{first.name}, seed {seed}"
        spec = spec_of(first.spec, {"training": {"seed": seed}}, f"study {study.name}, {name}")
        found.append(Trial(name, spec, first.reading))
    return found


def finished(folder: Path, trial: Trial) -> Row | None:
    """The row of a trial that the study has finished."""
    row = read_json(folder / "trials" / trial.key / ROW)
    return {**row, "name": trial.name} if isinstance(row, dict) else None


def forecasts(folder: Path, workspace: Workspace, trial: Trial) -> pd.DataFrame:
    """The forecast table of a finished trial, with outcomes and ``fold``."""
    import pandas as pd

    own = folder / "trials" / trial.key / FORECASTS
    kept = workspace.run(trial.spec).stage("walk_forward") / FORECASTS
    return pd.read_parquet(own if own.exists() else kept)


def carry_out(
    folder: Path,
    workspace: Workspace,
    trial: Trial,
    options: Options,
    *,
    raw: pd.DataFrame | None = None,
    listener: Listener | None = None,
) -> Row:
    """The row of a trial, which is carried out first unless it has been.

    Its run lies among the workspace's other runs, so one that is there already is not trained
    again. Another process at the same trial or run is waited for: it may be another study's, or a
    worker whose machine was lost and that is still dying. A spec that these prices cannot fill
    gives a row with ``failed``, which is not kept: other prices may be given the next time.

    Args:
        raw: the bars of the trial's spec, if they are loaded.

    Raises:
        Stopped: a signal came; the same call goes on from the newest checkpoint.
        RetryableError: the disk is full.
    """
    own = folder / "trials" / trial.key
    own.mkdir(parents=True, exist_ok=True)
    with locked(own / "lock"):
        if (row := finished(folder, trial)) is not None:
            return row
        run = workspace.create().run(trial.spec)
        run.prepare()
        with run.lock(wait=True):  # another study may have this very run at work
            events = Events(run.path / "events.jsonl", listener)
            ctx = Context(workspace, run, events, options, raw)
            try:
                row = _trained(ctx, own, trial)
            except (DataError, UsageError) as error:
                return {"name": trial.name, "failed": str(error)}
        write_json(own / ROW, row)
        return {**row, "name": trial.name}


def _trained(ctx: Context, own: Path, trial: Trial) -> Row:
    note = ""
    try:
        run_stages(ctx, ["walk_forward"])
    except PartialFailure as error:
        if ctx.stage("walk_forward").done() is None:
            raise
        note = str(error)
    read, seconds = None, None
    if trial.reading != "plain":
        from vnquant.studies import readings

        read, seconds = readings.read(ctx, trial.reading)
        with written_aside(own / FORECASTS) as aside:
            read.to_parquet(aside, index=False, compression="zstd")
    row = {"key": trial.key, "note": note, **figures.row(ctx, read)}
    return row if seconds is None else {**row, "forecast_seconds": seconds}
