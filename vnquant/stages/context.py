"""What every stage is handed: the run, the events, and how to execute (never what to compute)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vnquant.errors import DataError, UsageError
from vnquant.events import Events
from vnquant.spec import RunSpec
from vnquant.workspace import Run, Stage, Workspace

if TYPE_CHECKING:
    import pandas as pd

    from vnquant.accelerators.profile import Profile
    from vnquant.features.panel import Panel
    from vnquant.features.windows import Windows
    from vnquant.stages.kernels import Precompiling


@dataclass(frozen=True)
class Options:
    """Where and how to execute. Nothing here may change a result beyond rounding."""

    prices: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    cores: Literal["p", "e", "all"] | None = None
    teams: int | None = None
    """Processes that share training on a CPU; None: see `vnquant.accelerators.affinity.teams`."""
    cpus: tuple[int, ...] | None = None
    """Logical CPUs of this process alone, as one of a team."""
    ipex: Literal["auto", "on", "off"] = "auto"
    compiled: bool | None = None
    stack_width: int | None = None
    checkpoint_minutes: float = 20.0
    checkpoint_epochs: int | None = None
    memory_limit: int | None = None
    force: bool = False
    force_reason: str | None = None


@dataclass
class Context:
    """One run being executed by this process."""

    workspace: Workspace
    run: Run
    events: Events
    options: Options = field(default_factory=Options)
    raw: pd.DataFrame | None = None
    """Bars that the caller has already loaded for this very spec, to save reading them twice."""
    current: set[str] = field(default_factory=set)
    """Stages that this process has found finished, or has finished."""
    precompiling: Precompiling | None = None
    """Processes that compile the GPU's kernels meanwhile."""

    @property
    def spec(self) -> RunSpec:
        return self.run.spec

    def stage(self, name: str) -> Stage:
        return self.run.stage(name)

    @cached_property
    def profile(self) -> Profile:
        from vnquant.accelerators.profile import open_profile

        o = self.options
        return open_profile(
            self.spec.training,
            device=o.device,
            threads=o.threads,
            compiled=o.compiled,
            cores=o.cores,
            ipex=o.ipex,
            cpus=o.cpus,
        )

    @cached_property
    def panel(self) -> Panel:
        """The features stage's result, loaded once per process."""
        from vnquant.features.panel import Panel

        return Panel.load(self.stage("features") / "panel")

    @cached_property
    def windows(self) -> list[Windows]:
        from vnquant.features.windows import split

        return split(self.panel, self.spec.windows)

    @cached_property
    def folds(self) -> dict[int, list[Windows]]:
        """The windows of every fold of the walk-forward, in time order, numbered from 1.

        Raises:
            UsageError: the spec has no folds.
        """
        from vnquant.features.folds import split_folds

        if self.spec.walk_forward is None:
            raise UsageError(
                "the spec has no folds",
                where="walk_forward",
                fix="make one with `vnquant walk-forward`, or add them (docs/walk-forward.md)",
            )
        found = split_folds(self.panel, self.spec.windows, self.spec.walk_forward)
        return dict(enumerate(found, start=1))

    def windows_of(self, symbols: Sequence[str]) -> list[Windows]:
        by_symbol = {w.symbol: w for w in self.windows}
        return [by_symbol[s] for s in symbols]

    def of_these_models(self, marker: dict[str, Any]) -> bool:
        """Whether a finished stage's marker speaks of the models that are trained now."""
        trained = self.marker("train")
        return all(marker.get(key) == trained[key] for key in ("symbols", "snapshot"))

    def marker(self, stage: str) -> dict[str, Any]:
        """A finished stage's marker.

        Raises:
            DataError: the stage has not finished here.
        """
        marker = self.stage(stage).done()
        if marker is None:
            raise DataError(
                f"stage {stage} has not finished in this run",
                where=str(self.run.path),
                fix=f"run it first: vnquant run {stage} --spec {self.run.path / 'spec.json'}",
            )
        return marker
