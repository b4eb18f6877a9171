"""A machine lent by Google Colab; docs/colab.md says what that means."""

from __future__ import annotations

import base64
import os
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vnquant.errors import RetryableError, UsageError, VnquantError
from vnquant.host import process
from vnquant.host.colab import cells
from vnquant.host.colab.bundle import pack
from vnquant.host.colab.command import ACCELERATORS, TRANSFER, Colab, program
from vnquant.host.colab.session import allocate, mount, release, session, usage
from vnquant.host.colab.spending import over_limit
from vnquant.host.findings import Finding
from vnquant.host.records import age, folder, launches, now, refreshed, save
from vnquant.host.targets import STARTING, LaunchSpec, Record, State
from vnquant.workspace import locked, read_json, write_bytes, write_json

DRIVE = "/content/drive/MyDrive/vnquant"
HOLD = 1800.0
"""Seconds that an ended job's machine waits for us before it gives itself back."""
WAIT = 0.5


def interval() -> float:
    """Seconds between two questions to the machine; each costs seconds of a core here."""
    return float(os.environ.get("VNQUANT_COLAB_POLL", "30"))


class ColabTarget:
    """A detached process on a machine that may vanish at any time."""

    def __init__(self) -> None:
        self._last: tuple[float, State] | None = None

    def preflight(self, launch: LaunchSpec) -> list[Finding]:
        try:
            program()
        except UsageError as error:
            return [Finding("error", error.what, error.fix)]
        found = []
        if unknown := [g for g in launch.gpus if g not in ACCELERATORS]:
            what = f"--gpu does not know {', '.join(unknown)}"
            found.append(Finding("error", what, f"use {', '.join(ACCELERATORS)}"))
        for name in ("image", "cpuset", "memory"):
            if getattr(launch, name) is not None:
                found.append(Finding("error", f"--{name} means nothing on Colab", "leave it out"))
        if usage(session(launch.workspace, "preflight")) is None:
            fix = "run `colab usage` by hand and log in; the login is then kept"
            found.append(Finding("error", "the colab command is not logged in", fix))
        return found

    def start(self, launch: LaunchSpec, record: Record) -> Record:
        # Enough to know, after a SIGKILL in the middle, that nobody is starting it any more.
        record["controller"] = [os.getpid(), process.started_at(os.getpid())]
        save(record)
        if why := over_limit(record):
            raise UsageError(why, where=launch.run_id, fix="raise --max-hours or --max-units")
        colab = _session(record)
        there = cells.folder(record["launch"])
        python = os.environ.get("VNQUANT_COLAB_PYTHON", "")
        earlier = [r["launch"] for r in launches(launch.run) if "ended" in r]
        job = {"run": launch.run_id, "launch": record["launch"], "stages": launch.stages,
               "words": launch.words, "drive": DRIVE, "every": min(10.0, interval()),
               "before": earlier, "python": python or "python3"}  # fmt: skip
        try:
            with tempfile.TemporaryDirectory() as scratch:
                bundle = Path(scratch) / "bundle.tar"
                code = pack(launch, job, bundle)
                refusals: list[str] = []
                endpoint, hardware = allocate(colab, launch.gpus, refusals.append)
                record |= {"endpoint": endpoint, "hardware": hardware, "allocated": now(),
                           "refusals": refusals, "code": code,
                           "balance": (usage(colab) or (None,))[0]}  # fmt: skip
                save(record)
                mount(colab, cells.PREPARE.format(folder=there))
                up = colab.on("upload", str(bundle), f"{there}/bundle.tar", timeout=TRANSFER)
                if up.code != 0:
                    raise RetryableError(process.last_words(up), where=f"upload to {colab.name}")
            pid = colab.ask(cells.START.format(folder=there, python=python, hold=HOLD))
        except BaseException:
            release(colab, record.get("endpoint"))
            raise
        return {**record, "job": pid}

    def poll(self, record: Record) -> State:
        if self._last is not None and time.monotonic() - self._last[0] < interval():
            return self._last[1]
        # The command allows one of its kind per session at a time.
        with locked(_file(record, "lock")):
            state = self._ask(record)
        self._last = (time.monotonic(), state)
        return state

    def _ask(self, record: Record) -> State:
        if (result := read_json(_file(record, "exit.json"))) is not None:
            return State("exited", int(result["exit_code"]), result.get("note", ""))
        if "job" not in record and "job" not in refreshed(record):
            pid, started = record.get("controller", (0, None))
            if process.runs(pid, started) or age(record) < STARTING:
                return State("unknown", note="a machine is being made ready")
            return State("lost", note="its controller ended before it had started")
        colab = _session(record)
        try:
            seen = self._look(colab, record)
            if seen["exit"] is not None:
                return self._fetch(colab, record, int(seen["exit"]["exit_code"]))
            if not seen["running"]:
                return State("lost", note="the job ended without leaving an exit code")
            if (why := over_limit(record)) and "limit" not in record:
                self._tell(colab, record, signal.SIGTERM)
                record["limit"] = why
                save(record)
            return State("running")
        except RetryableError as error:
            return self._silent(colab, record, error)

    def _look(self, colab: Colab, record: Record) -> dict[str, Any]:
        """One question to the machine; what has grown there is appended here."""
        run = folder(record).parent
        files = {"log": _file(record, "log"), "events": _file(record, "events.jsonl")}
        for path in files.values():
            path.touch()
        sizes = {name: path.stat().st_size for name, path in files.items()}
        place = {"folder": cells.folder(record["launch"]), "run": record["run"]}
        cell = cells.LOOK.format(**place, **sizes, pid=record["job"], chunk=cells.CHUNK)
        while True:
            seen: dict[str, Any] = self._heard(colab, record, cell)
            grown = False
            for name, path in files.items():
                if content := base64.b64decode(seen[name]):
                    with path.open("ab") as out:
                        out.write(content)
                    grown = grown or len(content) >= cells.CHUNK
            if not grown:
                break
            sizes = {name: path.stat().st_size for name, path in files.items()}
            cell = cells.LOOK.format(**place, **sizes, pid=record["job"], chunk=cells.CHUNK)
        _merge(run / "events.jsonl", files["events"])
        if seen["progress"] is not None:
            write_json(run / "progress.json", seen["progress"])
        return seen

    def _fetch(self, colab: Colab, record: Record, code: int) -> State:
        """Bring the results here, then keep the exit code: with it the launch has ended."""
        run = folder(record).parent
        with tempfile.TemporaryDirectory(dir=run) as scratch:
            packed = Path(scratch) / "result.tar"
            source = f"{cells.folder(record['launch'])}/result.tar"
            down = colab.on("download", source, str(packed), timeout=TRANSFER)
            if down.code != 0 or not packed.exists():
                raise RetryableError(process.last_words(down), where=f"results of {colab.name}")
            safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tree = Path(scratch) / "tree"
            with tarfile.open(packed) as tar:
                tar.extractall(tree, **safely)
            # As on the machine: what vouches for other files comes after them.
            for path in sorted(tree.rglob("*"), key=lambda p: p.stat().st_mtime_ns):
                if path == tree / "events.jsonl":
                    _merge(run / "events.jsonl", path)
                elif path.is_file():
                    target = run / path.relative_to(tree)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
        note = record.get("limit", "")
        write_json(_file(record, "exit.json"), {"exit_code": code, "note": note})
        return State("exited", code, note)

    def _heard(self, colab: Colab, record: Record, cell: str) -> Any:
        """The machine's answer, also if the command has struck a living machine off its list."""
        try:
            return colab.ask(cell)
        except RetryableError:
            if colab.endpoint() is not None or record["endpoint"] not in (colab.machines() or {}):
                raise
            colab.adopt(record["endpoint"])
            return colab.ask(cell)

    def _silent(self, colab: Colab, record: Record, error: RetryableError) -> State:
        """No answer: is the machine gone, or only not to be heard?"""
        machines = colab.machines()
        if machines is None:
            return State("unknown", note="Colab does not answer")
        if record["endpoint"] not in machines:
            return State("lost", note="Colab has taken the machine back")
        return State("unknown", note=error.what)

    def output(self, record: Record, *, follow: bool) -> Iterator[str]:
        """What has arrived here; `poll` is what makes it arrive."""
        path, at, rest = _file(record, "log"), 0, b""
        while True:
            ended = not follow or self._over(record)
            if path.exists():
                with path.open("rb") as log:
                    log.seek(at)
                    content = log.read()
                at += len(content)
                *lines, rest = (rest + content).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if ended:
                if rest:
                    yield rest.decode(errors="replace")
                return
            time.sleep(WAIT)

    def _over(self, record: Record) -> bool:
        known = read_json(folder(record) / f"{record['launch']}.json") or {}
        return _file(record, "exit.json").exists() or "ended" in known

    def _tell(self, colab: Colab, record: Record, signum: signal.Signals) -> None:
        cell = cells.STOP.format(pid=record["job"], signum=int(signum))
        self._heard(colab, record, cell)

    def stop(self, record: Record, grace: float) -> None:
        if "job" not in refreshed(record):
            return
        with locked(_file(record, "lock")):
            self._tell(_session(record), record, signal.SIGTERM)
        until = time.monotonic() + grace
        while (state := self._now(record)).status in ("running", "unknown"):
            if time.monotonic() > until and state.status == "running":
                # The job's session as a whole: the program may not listen any more.
                with locked(_file(record, "lock")):
                    self._tell(_session(record), record, signal.SIGKILL)
                return
            if time.monotonic() > until + 120:
                raise RetryableError("does not answer", where=f"launch {record['launch']}")
            time.sleep(WAIT)

    def _now(self, record: Record) -> State:
        with locked(_file(record, "lock")):
            return self._ask(record)

    def remove(self, record: Record) -> bool:
        """Give the machine back; until that is certain, every later command tries again."""
        try:
            with locked(_file(record, "lock")):
                gone = release(_session(record), refreshed(record).get("endpoint"))
        except VnquantError:
            return False
        if gone:
            record.setdefault("released", now())
        return gone


def _merge(events: Path, others: Path) -> None:
    """Add the events that others have seen: here the phases before and after, there every machine.

    An event holds its time to the millisecond, so equal lines are one event.
    """
    own = events.read_bytes().splitlines(keepends=True) if events.exists() else []
    known = set(own)
    theirs = others.read_bytes().splitlines(keepends=True)
    new = [line for line in theirs if line.endswith(b"\n") and line not in known]
    if new:
        write_bytes(events, b"".join(own + new))


def _session(record: Record) -> Colab:
    return session(Path(record["workspace"]), record["launch"])


def _file(record: Record, kind: str) -> Path:
    return folder(record) / f"{record['launch']}.{kind}"
