"""Training shared by processes, each with cores or a GPU of its own, all with one queue of units.

A team that dies takes nothing with it: the others find its unit free and go on from its newest
checkpoint. If this process dies, the teams see the end of their stdin, save, and leave.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, TypeAlias

from vnquant.accelerators.affinity import Cpus
from vnquant.errors import RETRY, RetryableError, Stopped
from vnquant.events import Event
from vnquant.stages.fleet import Fleet
from vnquant.stages.worker import Advance
from vnquant.training.watch import Watch

POLL = 0.2


class Place(NamedTuple):
    """Where a team computes."""

    cpus: Cpus
    gpu: str | None = None
    """As CUDA_VISIBLE_DEVICES names it; None: on the CPUs."""


Inbox: TypeAlias = "queue.Queue[tuple[Team, Event | None]]"
"""A team and its event; None: it has ended."""


class Team:
    """A child process, and the thread that reads its events."""

    def __init__(self, number: int, place: Place, job: dict[str, Any], inbox: Inbox) -> None:
        self.number = number
        self.steps = 0
        self.report: Event | None = None
        self.failure = ""
        # A session of its own: Ctrl-C in the terminal reaches us, and we pass it on.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vnquant.stages.team"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | ({"CUDA_VISIBLE_DEVICES": place.gpu} if place.gpu else {}),
        )
        say(self.process, json.dumps(job, default=str))
        threading.Thread(target=self._read, args=(inbox,), daemon=True).start()

    def begin(self) -> None:
        """Let it take its first unit; until then it gets ready."""
        say(self.process, "begin")

    def _read(self, inbox: Inbox) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            inbox.put((self, json.loads(line)))
        inbox.put((self, None))


def say(process: subprocess.Popen[str], line: str) -> None:
    """Write a line to a child's stdin; if it has died, whoever waits for it finds out."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line + "\n")
        process.stdin.flush()


def train_in_teams(
    fleet: Fleet,
    places: Sequence[Place],
    watch: Watch,
    advance: Advance,
    prepare: Callable[[], None] = lambda: None,
) -> list[Event]:
    """Train a fleet; returns each team's report: its place, units, steps, seconds and memory.

    Args:
        prepare: done while the teams load what they need; none takes a unit before.
        watch: its memory limit is divided among the teams; its signal is passed on to them.

    Raises:
        Stopped: a signal came; every team saved a checkpoint.
        RetryableError: every team was lost, and models are left to train.
    """
    inbox: Inbox = queue.Queue()
    crew: list[Team] = []
    try:
        for number, place in enumerate(places):
            crew.append(Team(number, place, _job(fleet, place, watch, len(places)), inbox))
            pid = crew[-1].process.pid
            fleet.ctx.events.emit("team_started", team=number, pid=pid, **place._asdict())
        prepare()
        for team in crew:
            team.begin()
        _follow(fleet, crew, inbox, watch, advance)
    finally:
        for team in crew:  # whoever is left saves and leaves
            assert team.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                team.process.stdin.close()
    if watch.signum is not None:
        raise Stopped(
            "stopped by a signal; every team saved a checkpoint",
            fix="run the same command again to continue",
            signum=watch.signum,
        )
    if any(fleet.finished(m) is None for m in fleet.wanted):
        why = "; ".join(f"team {t.number}: {t.failure}" for t in crew)
        if all(t.process.returncode in (RETRY, -signal.SIGKILL) for t in crew):
            raise RetryableError(
                f"every team was lost ({why})",
                where="train",
                fix="see to memory and disk space, and run again: it goes on where it stood",
            )
        raise RuntimeError(f"every team failed ({why})")
    return [t.report for t in crew if t.report is not None]


def _job(fleet: Fleet, place: Place, watch: Watch, count: int) -> dict[str, Any]:
    ctx = fleet.ctx
    options = replace(
        ctx.options,
        cpus=place.cpus,
        cores=None,
        teams=1,
        device="cuda" if place.gpu else "cpu",
        compiled=ctx.profile.compile,
        ipex="on" if ctx.profile.ipex else "off",
    )
    return {
        "workspace": str(ctx.workspace.path),
        "run": ctx.spec.run_id,
        "options": asdict(options),
        "stage": fleet.stage,
        "wanted": fleet.wanted,
        "limit": watch.memory.limit // count,
    }


def _follow(
    fleet: Fleet,
    crew: Sequence[Team],
    inbox: Inbox,
    watch: Watch,
    advance: Advance,
) -> None:
    at_work, told = set(crew), False
    while at_work:
        if watch.signum is not None and not told:
            told = True
            for team in at_work:
                team.process.send_signal(signal.SIGTERM)
        try:
            team, event = inbox.get(timeout=POLL)
        except queue.Empty:
            continue
        if event is None:
            at_work.discard(team)
            _ended(fleet, team, watch)
        elif event["event"] == "team_progress":
            team.steps = event["steps"]
            advance(sum(t.steps for t in crew), event["note"])
        elif event["event"] == "team_finished":
            team.report = {k: v for k, v in event.items() if k != "event"}
        elif event["event"] == "team_failed":
            team.failure = event["why"]
        else:
            kind = event.pop("event")
            event.pop("time", None)
            fleet.ctx.events.emit(kind, **event, team=team.number)


def _ended(fleet: Fleet, team: Team, watch: Watch) -> None:
    code = team.process.wait()
    if code == 0 or watch.signum is not None:
        return
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    team.failure = team.failure or ended
    fleet.ctx.events.emit("team_lost", team=team.number, why=team.failure)
