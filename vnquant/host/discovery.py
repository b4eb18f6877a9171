"""Which files of a workspace are finished, and in what order they may be published.

Finished means: it will never change under this name. Files that grow or are replaced (manifest,
events, the registry's pointer) are published as snapshots named by their content.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from vnquant.host.stores import Artefact, file_hash, is_beside
from vnquant.registry_files import SET
from vnquant.stages import STAGES
from vnquant.workspace import DONE, read_json

SNAPSHOTS = ("manifest.json", "events.jsonl")
MARKERS = (DONE, SET)
TRAINING = ("train", "walk_forward")
"""Stages that publish each model and checkpoint as soon as it is whole."""
HISTORY = "history"
SHARED = ("configs/", "data/")
"""Folders that people edit, here and elsewhere: kept in step both ways, by hand never merged."""


def artefacts(workspace: Path, run: str | None = None) -> tuple[list[Artefact], list[Artefact]]:
    """Files to publish, and the markers that come after them.

    Args:
        run: only this run and the sets deployed from it; None: everything.
    """
    found: list[Path] = []
    for folder in sorted((workspace / "runs").glob(run or "*")):
        found += _of_run(folder)
    for done in sorted((workspace / "registry" / "sets").glob(f"*/{SET}")):
        if run is None or (read_json(done) or {}).get("run_id") == run:
            found += _files(done.parent)
    for name in SHARED:
        found += (p for p in _files(workspace / name) if not is_beside(p.name))
    everything = [Artefact(p.relative_to(workspace).as_posix(), p) for p in found]
    markers = [a for a in everything if a.path.name in MARKERS]
    rest = [a for a in everything if a.path.name not in MARKERS]
    return rest, markers


def _of_run(run: Path) -> Iterator[Path]:
    if (run / "spec.json").exists():
        yield run / "spec.json"
    for stage in (run / name for name in STAGES):
        if stage.name in TRAINING:
            yield from _trained(stage)
        elif (stage / DONE).exists():
            yield from _files(stage)


def _trained(stage: Path) -> Iterator[Path]:
    """What a stage that trains has finished, before it is done itself and after."""
    # The JSON is written last: where it is, the tensors are whole.
    kinds = ("models/**/*.json", "checkpoints/*.json")
    found = (
        done for kind in kinds for into in ("", "pretrain/") for done in stage.glob(into + kind)
    )
    for done in sorted(found):
        tensors = done.with_suffix(".safetensors")
        if tensors.exists():
            yield tensors
        yield done
    if (stage / DONE).exists():
        yield from (p for p in sorted(stage.iterdir()) if p.is_file() and p.name[0] != ".")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path


def snapshots(workspace: Path, run: str | None, into: Path) -> list[Artefact]:
    """Copies of the files that still change, as they are now, named by their content."""
    found = []
    sources = [
        folder / name
        for folder in sorted((workspace / "runs").glob(run or "*"))
        for name in SNAPSHOTS
    ]
    if run is None:
        sources += [workspace / "registry" / n for n in ("current.json", "journal.jsonl")]
    for source in sources:
        try:
            content = source.read_bytes()
        except OSError:
            continue
        content = content[: content.rfind(b"\n") + 1]  # no half line
        if not content:
            continue
        into.mkdir(parents=True, exist_ok=True)
        copy = into / "now"
        copy.write_bytes(content)
        digest = file_hash(copy)[:12]
        kept = copy.rename(into / f"{source.stem}-{digest}{source.suffix}")
        folder = source.parent.relative_to(workspace) / HISTORY
        found.append(Artefact(f"{folder.as_posix()}/{kept.name}", kept))
    return found


def is_snapshot(name: str) -> bool:
    """Whether a published name is that of a copy from `snapshots`."""
    return f"/{HISTORY}/" in name


def is_shared(name: str) -> bool:
    """Whether a published name is that of a file that may be edited on every side."""
    return name.startswith(SHARED)


def at_work(workspace: Path, idle: float) -> bool:
    """Whether a process works on a run: in this container, another one, or on the host.

    Args:
        idle: a run whose log was written in the last so many seconds is not looked at closer.
    """
    for lock in (workspace / "runs").glob("*/lock"):
        try:
            if time.time() - (lock.parent / "events.jsonl").stat().st_mtime < idle:
                return True
        except OSError:
            pass  # no log yet
        try:
            with lock.open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            continue
    return False
