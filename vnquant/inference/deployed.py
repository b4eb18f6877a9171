"""Open a deployed set (or a run) and forecast with it, from fresh prices or the run's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vnquant.errors import UsageError
from vnquant.evaluation.recalibration import stored
from vnquant.features.panel import Panel, build_panel
from vnquant.features.windows import split
from vnquant.inference.forecast import forecast_table
from vnquant.inference.predictor import load_models
from vnquant.inference.variants import VARIANTS
from vnquant.market.universe import check_known
from vnquant.registry import Registry
from vnquant.spec import RunSpec, load_spec
from vnquant.workspace import Workspace, read_json


@dataclass(frozen=True)
class Ready:
    """Models, the spec they were trained by, and where their run's panel may lie."""

    title: str
    spec: RunSpec
    models: Path
    symbols: list[str]
    variant: str
    panel: Path
    verdict: Path
    """What was judged; it may not exist. Of sets of earlier versions it holds the calibration."""
    last_session: str | None
    """The newest session that it was judged on, ISO; sets of the first release do not say."""

    def forecast(
        self, symbols: Sequence[str], prices: Path | None
    ) -> tuple[pd.DataFrame, dict[str, str]]:
        """Forecast the given symbols (none: all of the set); see `forecast_table`.

        Raises:
            UsageError: a symbol is not in the set, or there are no prices to forecast from.
        """
        wanted = sorted({s.strip().upper() for s in symbols}) or self.symbols
        check_known(wanted, dict.fromkeys(self.symbols, ""))
        panel = self.open_panel(wanted, prices)
        models = load_models(self.models, wanted, otherwise=stored(read_json(self.verdict)))
        windows = [w for w in split(panel, self.spec.windows) if w.symbol in wanted]
        return forecast_table(models, panel, windows, build=VARIANTS[self.variant])

    def open_panel(self, wanted: list[str], prices: Path | None) -> Panel:
        """The panel of some symbols from fresh prices, or the run's own; see `forecast`."""
        if prices is None and self.panel.with_suffix(".json").exists():
            return Panel.load(self.panel)
        if prices is None and self.spec.data.source == "folder":
            raise UsageError(
                "the run's own prices are not in this workspace",
                where="--prices",
                fix="give the price file to forecast from",
            )
        # Here: a forecast from the run's own panel starts without what reading prices needs.
        from vnquant.market.index import levels_for
        from vnquant.market.quality import inspect
        from vnquant.market.sessions import sessions
        from vnquant.market.sources import open_source

        source = open_source("folder" if prices else "synthetic", prices)
        raw = source.load(wanted, start=self.spec.data.start, end=None)
        calendar = sessions(raw)
        clean = inspect(raw, calendar, max_gap=self.spec.windows.max_gap).clean
        index = levels_for(self.spec.features.name, prices, self.spec.data.start, None)
        return build_panel(clean, calendar, self.spec.windows.horizon, index)


def open_deployed(workspace: Workspace) -> Ready:
    """The set that is current now.

    Raises:
        UsageError: nothing is deployed.
    """
    current = Registry(workspace.registry).current()
    if current is None:
        raise UsageError(
            "nothing is deployed",
            where=f"workspace {workspace.path}",
            fix="run `vnquant train`; if its gate refuses, use --run RUN or deploy with --force",
        )
    spec = load_spec(current.path / "spec.json")
    return Ready(
        title=f"Deployed set {current.set_id} (run {spec.run_id})",
        spec=spec,
        models=current.path / "models",
        symbols=list(current.meta["symbols"]),
        variant=str(current.meta.get("inference", "eager")),
        panel=workspace.run(spec).stage("features") / "panel",
        verdict=current.path / "verdict.json",
        last_session=current.meta.get("last_session"),
    )


def open_run(workspace: Workspace, run_id: str) -> Ready:
    """A run's own models, deployed or not.

    Raises:
        UsageError: no such run, or it has not been trained.
    """
    run = workspace.find(run_id)
    marker = run.stage("train").done()
    if marker is None:
        raise UsageError(
            "has no trained models", where=f"run {run.spec.run_id}", fix="train it first"
        )
    return Ready(
        title=f"Run {run.spec.run_id} (its models may not be the deployed ones)",
        spec=run.spec,
        models=run.stage("train") / "models",
        symbols=list(marker["symbols"]),
        variant="eager",
        panel=run.stage("features") / "panel",
        verdict=run.stage("evaluate") / "verdict.json",
        last_session=(run.stage("ingest").done() or {}).get("last"),
    )
