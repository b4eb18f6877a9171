"""What runs on the lent machine: installs, restores, trains, saves to Drive.

The machine has nothing of ours yet, so this needs only the standard library.

``python agent.py FOLDER`` reads FOLDER/job.json and leaves FOLDER/exit.json, last of all. Training
writes to the machine's own disk; what is finished there is copied to Drive, and comes back on the
next machine. On Drive::

    data/  configs/<run>.json  models/<run>/  checkpoints/<run>/  logs/<run>/<launch>.*
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LEAST_DRIVE = 500_000_000
KEEP = 3
"""Complete checkpoints of each folder that stay on Drive, even when the run needs fewer."""
CHECKPOINTS = "checkpoints"
"""Name of every folder of checkpoints in a run: the stages that train have one, or several."""
SAVED = "train/checkpoints/"
BULKY = 200_000_000
USAGE, RETRY = 2, 5


def say(text: str) -> None:
    """A line of the launch's log."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write(path: Path, content: bytes) -> None:
    """Write aside and rename: on Drive, too, a name stands for a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    aside.write_bytes(content)
    aside.replace(path)


def note(path: Path, **value: Any) -> None:
    write(path, json.dumps({"time": time.time(), **value}).encode())


def missing(lock: Path) -> str:
    """The part of a lock file that this Python does not have in just these versions."""
    wanted: list[str] = []
    for block in re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8")):
        pin = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if pin is None:
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if importlib.metadata.version(pin[1]) == pin[2]:
                continue
        wanted.append(block)
    return "\n".join(wanted)


def install(folder: Path, python: str) -> None:
    """The wheel and its locked dependencies, beside the machine's own torch."""
    site, lock = folder / "site", folder / "missing.txt"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    environment = {k: v for k, v in os.environ.items() if k != "PIP_TARGET"}
    if wanted := missing(folder / "runtime.txt"):
        lock.write_text(wanted + "\n", encoding="utf-8")
        command = [*pip, "--require-hashes", "-r", str(lock)]
        subprocess.run(command, check=True, env=environment)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, str(wheel)], check=True, env=environment)


class Drive:
    """One run's place on Drive."""

    def __init__(self, root: Path, run: str) -> None:
        self.models = root / "models" / run
        self.checkpoints = root / "checkpoints" / run
        self.logs = root / "logs" / run
        self.config = root / "configs" / f"{run}.json"
        for folder in (self.models, self.checkpoints, self.logs, self.config.parent, root / "data"):
            folder.mkdir(parents=True, exist_ok=True)
        self._copied: dict[str, tuple[int, int]] = {}

    def place(self, name: str) -> Path:
        """Where a file of the run's folder is kept."""
        if name.startswith(SAVED):
            return self.checkpoints / name.removeprefix(SAVED)
        return self.models / name

    def restore(self, run: Path) -> None:
        """Bring back what an earlier machine has saved."""
        for source, into in ((self.models, run), (self.checkpoints, run / SAVED)):
            for path in source.rglob("*"):
                if path.is_file() and not path.name.endswith(".aside"):
                    target = into / path.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)

    def beat(self, launch: str, phase: str, gpu: str | None) -> None:
        """Leave a sign of life."""
        note(self.logs / "heartbeat.json", launch=launch, phase=phase, gpu=gpu)

    def keep(self, run: Path, log: Path, launch: str, phase: str, gpu: str | None) -> None:
        """Save the run, its launch's log and a sign of life. Drive being away ends nothing."""
        try:
            self.save(run)
            write(self.logs / f"{launch}.log", log.read_bytes())
            self.beat(launch, phase, gpu)
        except OSError as error:
            say(f"Drive takes nothing now ({error}).")

    def save(self, run: Path) -> None:
        """Copy what has changed, oldest first: a marker never comes before what it vouches for."""
        begin = time.time_ns()
        found: list[tuple[int, int, Path]] = []
        for path in run.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # pruned just now
                stat = path.stat()
                # A file written during the listing may follow one that the listing has missed.
                if path.is_file() and not path.is_symlink() and stat.st_mtime_ns <= begin:
                    found.append((stat.st_mtime_ns, stat.st_size, path))
        for mtime, size, path in sorted(found):
            name = path.relative_to(run).as_posix()
            lock = path.name == "lock" or path.name.endswith(".lock")
            if (
                lock
                or path.name.startswith(".")
                or name.startswith("launches/")
                or self._copied.get(name) == (mtime, size)
            ):
                continue
            try:
                write(self.place(name), path.read_bytes())
            except FileNotFoundError:
                # A checkpoint is pruned JSON first, so nothing is left that would vouch for a part.
                if path.parent.name == CHECKPOINTS:
                    continue
                return  # the order has a gap: go on the next time
            self._copied[name] = (mtime, size)
        needed = {self.place(path.relative_to(run).as_posix()) for _, _, path in found}
        for folder in run.rglob(CHECKPOINTS):
            if folder.is_dir():
                prune(self.place(f"{folder.relative_to(run).as_posix()}/"), needed)


def prune(folder: Path, needed: set[Path]) -> None:
    """Delete checkpoints on Drive that the run has pruned, but keep the newest complete ones."""
    complete = sorted(p for p in folder.glob("*.json"))
    complete = [p for p in complete if p.with_suffix(".safetensors").exists()]
    kept = {p.stem for p in complete[-KEEP:]}
    for path in sorted(folder.glob("*")):  # .json before .safetensors
        if path.is_file() and path not in needed and path.stem not in kept:
            path.unlink()


def at_work(drive: Drive, before: Sequence[str], every: float) -> str | None:
    """Whether another launch works on the run, in words; None if none is heard.

    Args:
        before: launches that are known to have ended, or are our own.
        every: seconds between two signs of life.
    """
    with contextlib.suppress(OSError, ValueError):
        beat = json.loads((drive.logs / "heartbeat.json").read_text())
        over = beat["phase"] == "ended" or beat["launch"] in before
        if not over and time.time() - beat["time"] < 10 * every + 30:
            return f"launch {beat['launch']} is at work on this run"
    return None


def gpu() -> str | None:
    """The accelerator that is really there."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Agent:
    """One launch, from the bundle to the exit code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job: dict[str, Any] = json.loads((folder / "job.json").read_text())
        self.workspace = folder / "workspace"
        self.run = self.workspace / "runs" / self.job["run"]
        self.drive = Drive(Path(self.job["drive"]), self.job["run"])
        self.child: subprocess.Popen[bytes] | None = None
        self.asked: list[int] = []
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self.forward)

    def forward(self, signum: int, _frame: object) -> None:
        self.asked.append(signum)
        if self.child is not None:
            self.child.send_signal(signum)

    def refusal(self) -> tuple[int, str] | None:
        """Why this launch must not begin."""
        free = shutil.disk_usage(self.job["drive"]).free
        if free < LEAST_DRIVE:
            return USAGE, f"Drive has {free / 1e6:.0f} MB left; free {LEAST_DRIVE / 1e6:.0f} MB"
        why = at_work(self.drive, self.job["before"], self.job["every"])
        return None if why is None else (RETRY, why)

    def main(self) -> int:
        self.gpu = gpu()
        if why := self.refusal():
            say(why[1])
            return self.end(why[0])
        try:
            self.drive.beat(self.job["launch"], "installing", self.gpu)
            install(self.folder, self.job["python"])
            self.drive.restore(self.run)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"The machine could not be made ready: {error}")
            return self.end(RETRY)
        self.run.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "spec.json", self.run / "spec.json")
        write(self.drive.config, (self.folder / "spec.json").read_bytes())
        if self.asked:
            return self.end(128 + self.asked[0])
        command = [self.job["python"], "-m", "vnquant", "run", *self.job["stages"]]
        command += ["--spec", str(self.run / "spec.json"), "--workspace", str(self.workspace)]
        if self.job["prices"]:
            command += ["--prices", str(self.folder / self.job["prices"])]
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "site")}
        self.child = subprocess.Popen(
            [*command, *self.job["words"]], cwd=self.folder, env=environment
        )
        if self.asked:
            self.child.send_signal(self.asked[0])
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.child.wait(timeout=self.job["every"])
                return self.end(128 - code if code < 0 else code)
            self.save("running")

    def save(self, phase: str) -> None:
        self.drive.keep(self.run, self.folder / "log", self.job["launch"], phase, self.gpu)

    def end(self, code: int) -> int:
        """Save all, pack the results, and leave the exit code."""
        self.save("ended")
        with tarfile.open(self.folder / "result.tar", "w") as tar:
            for path in sorted(self.run.rglob("*")):
                name = path.relative_to(self.run).as_posix()
                bulky = path.parent.name == CHECKPOINTS and path.stat().st_size > BULKY
                if path.is_file() and name not in ("lock", "spec.json") and not bulky:
                    tar.add(path, arcname=name)
        for place in (
            self.drive.logs / f"{self.job['launch']}.exit.json",
            self.folder / "exit.json",
        ):
            with contextlib.suppress(OSError):
                note(place, exit_code=code, gpu=self.gpu)
        return code


if __name__ == "__main__":
    sys.exit(Agent(Path(sys.argv[1])).main())
