"""Jobs: a whole cycle each, as a record that outlives whoever carries it out.

::

    jobs/<job>.json   what was asked for, how far it is, what came of it; no secrets
    jobs/lock         held while a cycle is at work; the kernel frees it however that ends
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from vnquant.errors import RetryableError
from vnquant.host.records import now
from vnquant.spec import RunSpec
from vnquant.workspace import locked, read_json, write_json

Mode = Literal["local", "colab", "hybrid"]
JobState = Literal["running", "finished", "failed", "stopped", "interrupted"]


class Job(BaseModel):
    """One cycle.

    Attributes:
        job: its id, which sorts by time.
        run: the run that it works on.
        target: where phase 2 takes place; after a fallback, where it really did.
        state: ``interrupted`` is never written: it is what a ``running`` job is called that nobody
            carries out.
        phase: the one it is in, or ended in, from 1.
        done: phases that have ended well.
        attempts: how often each phase was begun, by its number.
        cost: hours of machine time by target, and compute units where the target tells them.
        result: see `vnquant.host.summary.result`.
        note: why it failed or fell back, one sentence.
        ended, exit_code: None while it goes on.
    """

    job: str
    mode: Mode
    run: str
    symbols: tuple[str, ...]
    target: str
    fallback: str | None = None
    state: JobState = "running"
    phase: int = 1
    done: list[int] = Field(default_factory=list)
    attempts: dict[int, int] = Field(default_factory=dict)
    cost: dict[str, float] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)
    note: str = ""
    started: str
    ended: str | None = None
    exit_code: int | None = None

    @property
    def seconds(self) -> float:
        """Wall time from its first start, pauses between two commands included."""
        until = dt.datetime.fromisoformat(self.ended) if self.ended else dt.datetime.now(dt.UTC)
        return (until - dt.datetime.fromisoformat(self.started)).total_seconds()


class Jobs:
    """The jobs of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self.path = workspace / "jobs"

    def save(self, job: Job) -> None:
        write_json(self.path / f"{job.job}.json", job.model_dump(mode="json"))

    def all(self) -> list[Job]:
        """Every job, newest first; a record that cannot be read is left out."""
        found: list[Job] = []
        for path in self.path.glob("*.json"):
            with contextlib.suppress(ValidationError):
                found.append(Job.model_validate(read_json(path)))
        found.sort(key=lambda j: j.job, reverse=True)
        if any(j.state == "running" for j in found) and not self.at_work():
            for job in found:
                job.state = "interrupted" if job.state == "running" else job.state
        return found

    def take_up(self, mode: Mode, spec: RunSpec, target: str, fallback: str | None) -> Job:
        """The unfinished job of the same run, mode and target, or a new one. Not saved yet."""
        for job in self.all():
            if (job.run, job.mode) == (spec.run_id, mode) and job.state != "finished":
                # Asked anew, the target of the first choice is tried again.
                return job.model_copy(
                    update={"state": "running", "target": target, "fallback": fallback, "note": "",
                            "ended": None, "exit_code": None}
                )  # fmt: skip
        began = dt.datetime.now(dt.UTC)
        return Job(
            job=f"{began:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
            mode=mode,
            run=spec.run_id,
            symbols=spec.symbols,
            target=target,
            fallback=fallback,
            started=now(),
        )

    def before(self, job: Job) -> Job | None:
        """The last finished job that began before this one."""
        return next((j for j in self.all() if j.job < job.job and j.state == "finished"), None)

    def at_work(self) -> bool:
        """Whether a cycle is being carried out now."""
        if not self.path.is_dir():
            return False
        with locked(self.path / "lock", wait=False) as free:
            return not free

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Carry out a cycle alone.

        Raises:
            RetryableError: another one is at work.
        """
        with locked(self.path / "lock", wait=False) as free:
            if not free:
                raise RetryableError(
                    "another cycle is at work in this workspace",
                    where=str(self.path),
                    fix="see `vnquant jobs`; wait for it, or stop it and run again",
                )
            yield
