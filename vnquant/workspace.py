"""The workspace: one local directory, the same tree in every runtime.

Nothing in it can look whole when it is not: files are written aside, synced and renamed, and a
stage's marker is written last. Layout::

    WORKSPACE/
      runs/<run id>/            spec.json  manifest.json  events.jsonl  lock
        ingest/ features/ train/ evaluate/ backtest/ optimize/ deploy/ forecast/ report/
        walk_forward/           each with DONE.json last
      registry/                 deployed sets (vnquant.registry)
      studies/ rivals/          questions (vnquant.studies), what their trials are judged beside
      jobs/ weekly/             cycles (vnquant.host.jobs), the weekly loop (vnquant.weekly)
      configs/ data/            specs and prices of the user's own, kept in step with a remote
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vnquant.errors import RetryableError, UsageError
from vnquant.spec import RunSpec, load_spec

DONE = "DONE.json"
_ASKING = threading.Lock()
"""The umask can only be read by setting it, which two threads must not do at once."""


def sync_directory(path: Path) -> None:
    """Make renames inside ``path`` survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it and rename it into place.

    Raises:
        RetryableError: the disk is full; ``path`` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(fd)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb+") as handle:
            os.fsync(handle.fileno())
        # mkstemp makes files private; what we publish follows the user's umask.
        with _ASKING:
            umask = os.umask(0)
            os.umask(umask)
        aside.chmod(0o666 & ~umask)
        aside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RetryableError(
                "no space left on the device", where=str(path), fix="free some space and run again"
            ) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON; NaN is refused, because JSON has none."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=str) + "\n"
    write_bytes(path, text.encode())


def read_json(path: Path) -> Any:
    """Read JSON; a file that is missing or damaged reads as None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; the kernel releases it however the process ends.

    Yields:
        Whether it is held: always if ``wait``, else unless another holder has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


class Stage:
    """One stage's folder in a run."""

    def __init__(self, run: Run, name: str) -> None:
        self.name = name
        self.path = run.path / name

    def __truediv__(self, part: str) -> Path:
        return self.path / part

    def done(self) -> dict[str, Any] | None:
        """The marker's content, or None while the stage has not finished."""
        marker = read_json(self.path / DONE)
        return marker if isinstance(marker, dict) else None

    def finish(self, **content: Any) -> None:
        write_json(self.path / DONE, content)

    def reopen(self) -> None:
        """Take the marker away first, so a half-redone stage never looks finished."""
        (self.path / DONE).unlink(missing_ok=True)


class Run:
    """One run: a spec's digest and its folder."""

    def __init__(self, workspace: Workspace, spec: RunSpec) -> None:
        self.spec = spec
        self.workspace = workspace
        self.path = workspace.path / "runs" / spec.run_id

    def stage(self, name: str) -> Stage:
        return Stage(self, name)

    def prepare(self) -> None:
        """Create the folder and record the spec."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / "spec.json"
        if not target.exists():
            write_json(target, self.spec.model_dump(mode="json"))

    @contextlib.contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the run for this process; the kernel releases it however the process ends.

        Args:
            wait: until nobody else holds it.

        Raises:
            RetryableError: another process works on this run, and ``wait`` is not asked for.
            UsageError: the folder belongs to somebody else.
        """
        try:
            opened = (self.path / "lock").open("a+")
        except OSError as error:
            raise UsageError(
                f"cannot be written ({error.strerror})",
                where=str(self.path),
                fix="give this folder to the user who runs this, or choose another --workspace",
            ) from error
        with opened as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                raise RetryableError(
                    f"another process (pid {holder}) is working on this run",
                    where=str(self.path),
                    fix="wait for it, or stop it and run again",
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield


class Workspace:
    """The directory that holds every run and the registry."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()

    def create(self) -> Workspace:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # mkdir succeeds on a read-only mount when the folder is there already.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UsageError(
                f"cannot be written ({error.strerror})",
                where=f"workspace {self.path}",
                fix="choose another folder with --workspace",
            ) from error
        return self

    def run(self, spec: RunSpec) -> Run:
        return Run(self, spec)

    @property
    def registry(self) -> Path:
        return self.path / "registry"

    def find(self, run_id: str) -> Run:
        """A run by its id or a unique beginning of it.

        Raises:
            UsageError: no run, or more than one, begins like that.
        """
        root = self.path / "runs"
        found = sorted(p for p in root.glob(f"{run_id}*") if (p / "spec.json").exists())
        if len(found) != 1:
            known = ", ".join(sorted(p.name for p in root.glob("*"))) or "none"
            raise UsageError(
                f"{len(found)} runs begin with {run_id!r} (known: {known})",
                where=str(root),
                fix="give more digits of the run id",
            )
        return Run(self, load_spec(found[0] / "spec.json"))
