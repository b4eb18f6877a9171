"""Where the trials of a study are carried out: one after another here, or by Ray on many machines.

Ray is for when one machine is not enough. Its nodes share the workspace's folder and have vnquant
installed; what a node that dies had finished is in that folder, and its trial goes on elsewhere
from its newest checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vnquant.errors import RetryableError, UsageError
from vnquant.studies import trials
from vnquant.studies.trials import Row, Trial
from vnquant.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from vnquant.events import Listener
    from vnquant.stages.context import Options

OBJECT_STORE = 100_000_000
"""Bytes; nothing but specs and rows goes through it. 78 MB is the least that Ray takes."""


class Engine(Protocol):
    """Carries out trials; ``width`` of them make sense at a time."""

    width: int

    def __call__(self, wanted: Sequence[Trial]) -> list[Row]:
        """The rows of these trials, in their order."""
        ...


class Local:
    """One trial after another, in this process.

    Args:
        raw: bars of specs whose data is that of ``base``.
        told: called with each trial before it.
    """

    width = 1

    def __init__(
        self,
        folder: Path,
        workspace: Workspace,
        options: Options,
        *,
        base: Any = None,
        raw: pd.DataFrame | None = None,
        listener: Listener | None = None,
        told: Callable[[Trial], None] = lambda _: None,
    ) -> None:
        self._place, self._options = (folder, workspace), options
        self._base, self._raw, self._listener, self._told = base, raw, listener, told

    def __call__(self, wanted: Sequence[Trial]) -> list[Row]:
        return [self._one(trial) for trial in wanted]

    def _one(self, trial: Trial) -> Row:
        self._told(trial)
        same = self._base is not None and trial.spec.data == self._base.data
        raw = self._raw if same else None
        return trials.carry_out(
            *self._place, trial, self._options, raw=raw, listener=self._listener
        )


def room(
    resources: Mapping[str, float], device: str, threads: int, per_gpu: int = 1
) -> tuple[int, float]:
    """How many trials a cluster can carry out at a time, and the GPUs that each is given.

    Ray hides every GPU from a task that has not asked for one, or for a part of one.

    Args:
        resources: of the cluster, as Ray counts them.
        device: ``auto`` takes GPUs if there are any.
        per_gpu: trials that share a GPU.

    Raises:
        UsageError: GPUs are asked for, and there are none.
    """
    cards = int(resources.get("GPU", 0))
    if device == "cuda" and not cards:
        raise UsageError(
            "the cluster has no GPU", where="--device cuda", fix="leave it out, or add such a node"
        )
    cores = max(1, int(resources.get("CPU", 1)) // threads)
    if not cards or device == "cpu":
        return cores, 0.0
    return min(cards * per_gpu, cores), 1 / per_gpu


class Ray:
    """As many trials at a time as the cluster has room for.

    Args:
        address: of a cluster that runs; None: this machine's own, begun and ended here.
        per_gpu: trials that share a GPU: small ones do not keep it busy, nor does judging.

    Raises:
        UsageError: Ray is not installed, no cluster answers there, or it has no GPU to give.
    """

    def __init__(
        self,
        folder: Path,
        workspace: Workspace,
        options: Options,
        address: str | None = None,
        told: Callable[[Trial], None] = lambda _: None,
        per_gpu: int = 1,
    ) -> None:
        # It would phone home, and show what it does on a port of its own.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "Ray is not installed",
                where="--engine ray",
                fix="pip install 'vnquant[ray]', or use the engine local",
            ) from error
        threads = options.threads or 1
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            ray.init(address=address, log_to_driver=False, **({} if address else own))
        except (ConnectionError, ValueError) as error:
            raise UsageError(
                f"no cluster answers ({error})",
                where=f"--ray-address {address}",
                fix="start one with `ray start --head`, or leave the address out",
            ) from error
        self._ray, self._told = ray, told
        try:
            self.width, cards = room(ray.cluster_resources(), options.device, threads, per_gpu)
        except UsageError:
            ray.shutdown()
            raise
        # Kills are what checkpoints are for: as often as it takes. An error of ours is not retried.
        remote = ray.remote(
            num_cpus=threads, num_gpus=cards, max_retries=-1, retry_exceptions=False
        )(_carry_out)
        given = (folder, workspace.path, replace(options, threads=threads))
        self._begin = lambda trial: remote.remote(*given, trial)

    def __call__(self, wanted: Sequence[Trial]) -> list[Row]:
        for trial in wanted:
            self._told(trial)
        begun = [self._begin(trial) for trial in wanted]
        try:
            return list(self._ray.get(begun))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise RetryableError(
                f"the cluster failed ({type(error).__name__})",
                where="--engine ray",
                fix="run the same command again: finished trials are kept",
            ) from error

    def close(self) -> None:
        self._ray.shutdown()


def _carry_out(folder: Path, workspace: Path, options: Options, trial: Trial) -> Row:
    return trials.carry_out(folder, Workspace(workspace), trial, options)
