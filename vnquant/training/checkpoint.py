"""Checkpoints that are either whole or absent, and readable model by model.

A checkpoint is a pair ``<sequence>.safetensors`` (the four ``[M, P]`` matrices) and
``<sequence>.json`` (which models, where they stand, and the sha256 of the tensors), the JSON
renamed into place last. A model resumes from the newest checkpoint that names it, whatever stack
it was in then: a run begun at M = 306 resumes at M = 4. Several workers may share the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from vnquant.training.data import ModelId
from vnquant.training.ledger import Ledger
from vnquant.training.stack import ROW_TENSORS, Stack
from vnquant.workspace import locked, read_json, write_json, written_aside

FORMAT = 1
KEPT_VERSIONS = 2  # of each model: the newest, and one to fall back on if it was damaged


def file_sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@dataclass(frozen=True)
class Place:
    """Where one model's newest state is: a checkpoint, its row, and how far it had come."""

    checkpoint: Path
    row: int
    epoch: int
    inner: int
    compacting: bool

    @property
    def position(self) -> tuple[int, int, bool]:
        return (self.epoch, self.inner, self.compacting)


class Checkpoints:
    """The checkpoint folder of a run."""

    def __init__(self, path: Path, spec_digest: str) -> None:
        self.path = path
        self._digest = spec_digest
        self._verified: dict[Path, bool] = {}

    def save(self, stack: Stack, *, compacting: bool = False) -> Path:
        """Write the stack's state; returns the path of the JSON that completes it.

        Args:
            compacting: the caller is about to export the finished rows and drop them; whoever
                resumes from here must do so too before the next step.
        """
        # Of a stack in which nothing moves any more only the best slices are still wanted.
        names = ROW_TENSORS if stack.active else ("best",)
        tensors = {name: getattr(stack, name).detach().cpu().contiguous() for name in names}
        tensors["loss_sum"] = stack.loss_sum.cpu()
        tensors["finite"] = stack.finite.cpu()
        with self._alone():
            number = max((int(p.stem) for p in self.path.glob("*.json")), default=0) + 1
            target = self.path / f"{number:06d}.safetensors"
            with written_aside(target) as aside:
                save_file(tensors, aside)
            meta: dict[str, Any] = {
                "format": FORMAT,
                "spec_digest": self._digest,
                "epoch": stack.epoch,
                "inner": stack.inner,
                "compacting": compacting,
                "models": [list(m) for m in stack.models],
                "ledger": [entry.to_dict() for entry in stack.ledger],
                "sha256": file_sha256(target),
            }
            done = target.with_suffix(".json")
            write_json(done, meta)
        return done

    def _alone(self) -> AbstractContextManager[bool]:
        """One worker at a time numbers, writes or deletes checkpoints."""
        return locked(self.path / "lock")

    def _usable(self, done: Path) -> dict[str, Any] | None:
        """The metadata of a whole, undamaged checkpoint of this spec, else None."""
        meta = read_json(done)
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            return None
        if meta.get("spec_digest") != self._digest:
            return None
        if done not in self._verified:
            tensors = done.with_suffix(".safetensors")
            self._verified[done] = tensors.exists() and file_sha256(tensors) == meta["sha256"]
        return meta if self._verified[done] else None

    def places(self) -> dict[ModelId, Place]:
        """The newest usable state of every model that has one."""
        with self._alone():
            return self._places()

    def _places(self) -> dict[ModelId, Place]:
        found: dict[ModelId, Place] = {}
        for done in sorted(self.path.glob("*.json"), reverse=True):
            meta = self._usable(done)
            if meta is None:
                continue
            at = int(meta["epoch"]), int(meta["inner"]), bool(meta["compacting"])
            for row, model in enumerate(meta["models"]):
                found.setdefault(ModelId(*model), Place(done, row, *at))
        return found

    def restore(self, stack: Stack, places: dict[ModelId, Place]) -> None:
        """Fill a fresh stack, row by row, from checkpoints at one and the same position."""
        position = {places[m].position for m in stack.models}
        if len(position) != 1:
            raise ValueError(f"models of one stack stand at different positions: {position}")
        for done in {places[m].checkpoint for m in stack.models}:
            wanted = [
                (i, places[m].row)
                for i, m in enumerate(stack.models)
                if places[m].checkpoint == done
            ]
            ledger = read_json(done)["ledger"]
            with safe_open(done.with_suffix(".safetensors"), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a dict)
                    part = tensors.get_slice(name)
                    target = getattr(stack, name)
                    for i, row in wanted:
                        target[i] = part[row : row + 1][0].to(target.device)
            for i, row in wanted:
                stack.ledger[i] = Ledger.from_dict(ledger[row])
        epoch, inner, _ = position.pop()
        stack.resume_at(epoch, inner)

    def prune(self, finished: Iterable[ModelId]) -> None:
        """Delete checkpoints that no unfinished model could still need."""
        with self._alone():
            self._prune(set(finished))

    def _prune(self, done_models: set[ModelId]) -> None:
        covered: dict[ModelId, int] = {}
        for done in sorted(self.path.glob("*.json"), reverse=True):
            meta = read_json(done)
            models = [ModelId(*m) for m in meta["models"]] if meta else []
            needed = [
                m for m in models if m not in done_models and covered.get(m, 0) < KEPT_VERSIONS
            ]
            for m in models:
                covered[m] = covered.get(m, 0) + 1
            if not needed:
                # JSON first: without it the tensors are only debris, never a damaged checkpoint.
                done.unlink()
                done.with_suffix(".safetensors").unlink(missing_ok=True)
        known = {p.stem for p in self.path.glob("*.json")}
        for tensors in self.path.glob("*.safetensors"):
            if tensors.stem not in known:
                tensors.unlink()
        for part in self.path.glob(".*.part"):
            part.unlink()


def group_by_position(
    models: Sequence[ModelId], places: dict[ModelId, Place]
) -> dict[tuple[int, int, bool], list[ModelId]]:
    """Models that may share a stack: those that stand at the same epoch and step."""
    groups: dict[tuple[int, int, bool], list[ModelId]] = {}
    for m in models:
        position = places[m].position if m in places else (0, 0, False)
        groups.setdefault(position, []).append(m)
    return groups
