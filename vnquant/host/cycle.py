"""The cycle: prepare here, train there, judge here, deploy here. Each phase is a launch.

So a phase has what every launch has: a record, a log, an exit code that is kept, and a process that
outlives this one. After a SIGKILL the same command finds the phase at work, or takes it up where
its stages stand.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vnquant.errors import INTERRUPTED, OK, PARTIAL, RETRY, RetryableError, UsageError, VnquantError
from vnquant.host import launch as starting
from vnquant.host.findings import refuse_errors
from vnquant.host.jobs import Job, Jobs
from vnquant.host.launch import Say, Wish
from vnquant.host.records import launches, now
from vnquant.host.summary import result
from vnquant.host.targets import LaunchSpec, Record, State
from vnquant.workspace import DONE

PHASES = ("prepare", "train", "judge", "deploy")
TRAIN = 2
"""The number of the phase that may take place elsewhere."""
TARGET = {"local": "local", "hybrid": "colab", "colab": "colab"}
"""Where phase 2 of a mode takes place, unless --target says otherwise."""


def stages(mode: str, phase: int, *, optimize: bool = False) -> tuple[str, ...]:
    """The stages of a phase, counted from 1. What phase 2 has done, phase 3 finds finished."""
    judge = ("evaluate", "backtest", *(("optimize",) if optimize else ()))
    if phase == TRAIN:
        return ("train", *judge[:2]) if mode == "colab" else ("train",)
    return {1: ("ingest", "features"), 3: judge, 4: ("deploy", "forecast", "report")}[phase]


@dataclass
class Cycle:
    """Carries a job through its phases.

    Args:
        base: what all launches have in common; its target and stages are replaced.
        device: ``--device`` for the phases here.
        started: called with every launch's record as it is attended to.
    """

    jobs: Jobs
    job: Job
    base: LaunchSpec
    show: Say
    say: Say
    wish: Wish
    device: str = "auto"
    optimize: bool = False
    started: Callable[[Record], None] = lambda _: None

    def carry_out(self, first: int = 1) -> int:
        """Go through the phases from ``first`` that are not done; returns the exit code.

        Raises:
            UsageError: ``first`` builds on a stage that has not finished.
        """
        self._require(first)
        job = self.job
        # Whoever names a phase wants it looked at again, and those after it.
        job.done = [p for p in job.done if first == 1 or p < first]
        code = OK
        try:
            for phase in range(first, len(PHASES) + 1):
                if phase in job.done:
                    self.say(f"Phase {phase}, {PHASES[phase - 1]}: done before.")
                    continue
                ended = INTERRUPTED if self.wish.times else self._phase(phase)
                if ended not in (OK, PARTIAL):
                    return self._end(ended)
                code = max(code, ended)
                job.done.append(phase)
                self.jobs.save(job)
        except VnquantError as error:
            job.note = job.note or str(error)
            self._end(error.exit_code)
            raise
        except BaseException as error:
            job.note = job.note or type(error).__name__
            self._end(INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1)
            raise
        return self._end(PARTIAL if job.result.get("failed") else code)

    def _require(self, first: int) -> None:
        need = [s for phase in range(1, first) for s in stages(self.job.mode, phase)]
        missing = [s for s in need if not (self.base.run / s / DONE).exists()]
        if missing:
            raise UsageError(
                f"{', '.join(missing)} of run {self.base.run_id} has not finished",
                where=f"--from-phase {first}",
                fix="start with an earlier phase, or leave it out",
            )

    def _end(self, code: int) -> int:
        job = self.job
        job.exit_code, job.ended = code, now()
        if code in (OK, PARTIAL):
            job.state = "finished"
        else:
            job.state = "stopped" if self.wish.times else "failed"
        job.result, job.cost = result(self.base.run), cost(self.base, job.started)
        self.jobs.save(job)
        return code

    def _phase(self, phase: int) -> int:
        job = self.job
        job.phase, job.attempts[phase] = phase, job.attempts.get(phase, 0) + 1
        self.jobs.save(job)
        place = job.target if phase == TRAIN else "local"
        launch = self._launch(phase, place)
        if place != "local" and all((launch.run / s / DONE).exists() for s in launch.stages):
            # Nothing is left but to look whether it still holds: no machine is needed for that.
            place = "local"
            launch = self._launch(phase, place)
        self.say(f"Phase {phase} of {len(PHASES)}, {PHASES[phase - 1]}, on {place}.")
        try:
            state = self._attend(launch)
        except (RetryableError, UsageError) as error:
            if phase != TRAIN or not self._falls_back(place):
                raise
            state, why = State("lost"), str(error)
        else:
            why = f"{place}: {state.note or 'it was lost for good'}."
        if phase == TRAIN and state.status == "lost" and self._falls_back(place):
            assert job.fallback is not None
            job.note = f"Fell back from {place} to {job.fallback} ({why})"
            job.target = job.fallback
            self.jobs.save(job)
            self.say(job.note)
            state = self._attend(self._launch(phase, job.fallback))
        if state.status in ("running", "unknown"):
            job.note = "left running"
            return INTERRUPTED
        if state.exit_code not in (OK, PARTIAL):
            job.note = state.note or f"phase {PHASES[phase - 1]} ended with {state.exit_code}"
        return RETRY if state.exit_code is None else state.exit_code

    def _falls_back(self, place: str) -> bool:
        return self.job.fallback not in (None, place) and not self.wish.times

    def _launch(self, phase: int, target: str) -> LaunchSpec:
        here = target == "local"
        words = self.base.words + (("--device", self.device) if here else ())
        update: dict[str, Any] = {
            "target": target,
            "stages": stages(self.job.mode, phase, optimize=self.optimize),
            "words": words,
            "image": self.base.image if target in ("cpu", "cuda") else None,
        }
        if target != "colab":  # of lent machines only
            update |= {"gpus": (), "losses": None}
        return self.base.model_copy(update=update)

    def _attend(self, launch: LaunchSpec) -> State:
        """Follow the launch of this phase that is at work already, or a new one."""
        record = at_work(launch)
        if record is None:
            refuse_errors(starting.preflight(launch))
            record = starting.begin(launch)
        else:
            self.say(f"Launch {record['launch']} is at work already; following it.")
        return starting.attend(
            launch, record, self.show, self.say, wish=self.wish, started=self.started
        )


def at_work(launch: LaunchSpec) -> Record | None:
    """A launch of the same run, stages and target that nobody has seen end."""
    for record in reversed(launches(launch.run)):
        same = tuple(record["spec"]["stages"]) == launch.stages
        if same and record["target"] == launch.target and "ended" not in record:
            try:
                if starting.settle(record).status in ("running", "unknown"):
                    return record
            except UsageError:
                continue  # a target that this installation does not know
    return None


def cost(base: LaunchSpec, since: str) -> dict[str, float]:
    """Hours of machine time by target, of this run's launches since a time (ISO 8601).

    What is lent is paid from ``allocated`` to ``released``, where a launch's record has those.
    """
    hours: dict[str, float] = {}
    for record in launches(base.run):
        if str(record["started"]) < since:
            continue
        begin = record.get("allocated") or record["started"]
        end = record.get("released") or record.get("ended") or now()
        spent = dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(begin)
        name = f"h on {record['target']}"
        hours[name] = hours.get(name, 0.0) + spent.total_seconds() / 3600
    return {name: round(value, 4) for name, value in hours.items()}
