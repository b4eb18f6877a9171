"""The runs behind `benchmarks.colab`: one job here and there, a run that loses its machines."""

from __future__ import annotations

import datetime as dt
import json
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.colab.conftest import Emulator
from vnquant.host import launch as starting
from vnquant.host.colab.command import Colab
from vnquant.host.process import Finished
from vnquant.host.records import launches
from vnquant.host.targets import LaunchSpec, Record
from vnquant.spec import MemberSpec, ModelSpec, RunSpec
from vnquant.workspace import Workspace

SYMBOLS = ("FPT", "VCB")
ENDLESS = 100_000
WAIT = 300.0
WATCH = 0.1
"""Seconds between two looks at Drive: well below those between two writes of one file."""


def spec(epochs: int, seed: int) -> RunSpec:
    return RunSpec(
        symbols=SYMBOLS,
        data={"start": "2019-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),)),
        training={"epochs": epochs, "patience": None, "seed": seed},
    )


def prepared(
    folder: Path, target: str, of: RunSpec, words: tuple[str, ...] = (), **more: Any
) -> LaunchSpec:
    """A launch of stage train, in a workspace of its own."""
    workspace = Workspace(folder / f"{target}-{of.training.seed}-{of.training.epochs}").create()
    workspace.run(of).prepare()
    words = ("--threads", "1", "--quiet", *words)
    return LaunchSpec(target=target, workspace=workspace.path, run_id=of.run_id,  # type: ignore[arg-type]
                      stages=("train",), words=words, **more)  # fmt: skip


class Traffic:
    """Payload bytes between controller and machine, counted where the command is called."""

    def __init__(self) -> None:
        self.up = self.down = self.commands = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        plain = Colab.run

        def run(colab: Colab, *words: str, **how: Any) -> Finished:
            done = plain(colab, *words, **how)
            self.commands += 1
            if words[0] == "upload":
                self.up += Path(words[3]).stat().st_size
            elif words[0] == "download":
                self.down += Path(words[4]).stat().st_size
            elif words[0] == "exec":
                self.up += Path(words[4]).stat().st_size
                self.down += len(done.out.encode())
            return done

        Colab.run = run  # type: ignore[method-assign]
        try:
            yield
        finally:
            Colab.run = plain  # type: ignore[method-assign]


class Drive(threading.Thread):
    """Counts what is written to Drive, by looking at it; a file written anew counts anew."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.written, self.files = root, 0, 0
        self._seen: dict[Path, tuple[int, int]] = {}
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(WATCH):
            self.look()

    def look(self) -> None:
        for path in self.root.rglob("*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # pruned just now
            state = (stat.st_mtime_ns, stat.st_size)
            if path.is_file() and path.suffix != ".aside" and self._seen.get(path) != state:
                self._seen[path] = state
                self.written += stat.st_size
                self.files += 1

    def close(self) -> None:
        self._over.set()
        self.join()
        self.look()


def clock(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def events(path: Path) -> list[tuple[float, str]]:
    """Time and kind of every event of a log whose last line may still be arriving."""
    lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return [(clock(e["time"]), e["event"]) for e in map(json.loads, lines)]


def heard(launch: LaunchSpec, record: Record) -> list[tuple[float, str]]:
    """The events that one launch's machine has told of; the run's log may lose a lost machine's."""
    return events(launch.run / "launches" / f"{record['launch']}.events.jsonl")


def first(found: Sequence[tuple[float, str]], after: float, kind: str | None = None) -> float:
    return next(t for t, k in found if t > after and kind in (None, k))


def turn(launch: LaunchSpec) -> dict[str, float]:
    """Run a launch to its end; seconds of the whole and of its parts."""
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.time()
    state = starting.follow(starting.begin(launch), lambda _: None, print)
    ended = time.time()
    if state.exit_code != 0:
        raise RuntimeError(f"{launch.target}: {state}")
    (record,) = launches(launch.run)
    seen = [t for t, _ in events(launch.run / "events.jsonl")]
    found = {"whole": ended - began, "job": seen[-1] - seen[0], "before": seen[0] - began}
    found |= {"after": ended - seen[-1]}
    if launch.target == "colab":
        allocated = clock(record["allocated"])
        found |= {"packed and allocated": allocated - began, "made ready": seen[0] - allocated}
        found |= {"noticed and fetched": clock(record["ended"]) - seen[-1]}
        found |= {"released": ended - clock(record["ended"])}
        again = (
            resource.getrusage(resource.RUSAGE_SELF),
            resource.getrusage(resource.RUSAGE_CHILDREN),
        )
        found["controller's processor seconds"] = sum(
            b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime
            for a, b in zip(used, again, strict=True)
        )
    return found


def overhead(folder: Path, drive: Path, rounds: int, epochs: int) -> dict[str, Any]:
    """The same job here and there, in turns, and the bytes that each moves."""
    found: dict[str, list[dict[str, float]]] = {"local": [], "colab": []}
    moved = []
    for seed in range(rounds):
        for target in ("local", "colab") if seed % 2 == 0 else ("colab", "local"):
            launch = prepared(folder, target, spec(epochs, seed))
            traffic, watch = Traffic(), Drive(drive)
            watch.look()
            before = watch.written, watch.files
            watch.start()
            with traffic.counting():
                found[target].append(turn(launch))
            watch.close()
            if target == "colab":
                files = [p for p in launch.run.rglob("*") if p.is_file()]
                moved.append({
                    "to the machine": traffic.up, "from the machine": traffic.down,
                    "commands": traffic.commands, "to Drive": watch.written - before[0],
                    "files to Drive": watch.files - before[1],
                    "the run's folder here": sum(p.stat().st_size for p in files),
                })  # fmt: skip
            print(target, {k: round(v, 2) for k, v in found[target][-1].items()}, flush=True)
    return {"turns": found, "moved": moved}


def recovery(
    emulator: Emulator, folder: Path, drive: Path, reclaims: int
) -> list[dict[str, float]]:
    """A run that loses its machine ``reclaims`` times; seconds of each part of each recovery."""
    launch = prepared(folder, "colab", spec(ENDLESS, 0), ("--checkpoint-epochs", "1"),
                      losses=reclaims, retries=0)  # fmt: skip
    wish, taken = starting.Wish(), []
    record = starting.begin(launch)
    failed: list[BaseException] = []

    def attend() -> None:
        try:
            starting.attend(launch, record, lambda _: None, print, wish=wish)
        except BaseException as error:
            failed.append(error)

    controller = threading.Thread(target=attend)
    controller.start()
    try:
        for number in range(1, reclaims + 2):
            await_epoch(launch, drive, number, failed)
            if number <= reclaims:
                taken.append(time.time())
                emulator.control("reclaim")
    finally:
        wish.ask()
        controller.join(WAIT)
    known = launches(launch.run)
    found = []
    for lost, lasting, moment in zip(known, known[1:], taken, strict=False):
        noticed, begun = clock(lost["ended"]), clock(lasting["started"])
        allocated, seen = clock(lasting["allocated"]), heard(launch, lasting)
        program = first(seen, allocated)
        epoch = first(seen, program, "epoch")
        found.append({
            "noticed": noticed - moment, "pause": begun - noticed,
            "packed and allocated": allocated - begun, "made ready": program - allocated,
            "first new epoch": epoch - program, "whole": epoch - moment,
        })  # fmt: skip
    return found


def await_epoch(
    launch: LaunchSpec, drive: Path, number: int, failed: Sequence[BaseException]
) -> None:
    """Wait until launch ``number`` has told of an epoch, and put a new checkpoint on Drive."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until and not failed:
        known = launches(launch.run)
        if len(known) == number and "allocated" in known[-1]:
            began = clock(known[-1]["allocated"])
            kept = list((drive / "vnquant" / "checkpoints" / launch.run_id).glob("*.json"))
            # A restored checkpoint is not written again, so a later date means a new one.
            saved = any(p.stat().st_mtime > began + 1 for p in kept)
            if saved and any(t > began and k == "epoch" for t, k in heard(launch, known[-1])):
                return
        time.sleep(WATCH)
    raise RuntimeError(f"launch {number} saved no checkpoint: {failed}")
