"""Training from a notebook on Google Colab; ``notebooks/vnquant_colab.ipynb`` is its user.

The notebook's own process needs the standard library only: the machine's pandas and torch may be
others than ours, and are left alone. What is computed is computed by ``vnquant run``, in a process
of its own with the locked requirements, just as in a container or for ``--target colab``. Files
are worked on at the machine's own disk and copied to Drive as they are finished; a machine that is
taken away is replaced by running all cells again.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vnquant import colab_agent as agent
from vnquant.errors import OK, PARTIAL, DataError, RetryableError, UsageError, VnquantError

if TYPE_CHECKING:
    import pandas as pd

DRIVE = Path("/content/drive/MyDrive/vnquant")
SCRATCH = Path("/content/vnquant")
STAGES = ("ingest", "features", "train", "evaluate", "backtest", "forecast", "report")
"""Not deploy: a set is deployed where the registry is (docs/notebook.md)."""
SAVE_SECONDS = 10.0
LEAST_TORCH = (2, 8)
PRICES = (".parquet", ".csv")

PLAN = """
import json, pathlib, sys
from vnquant.cli_plan import PLANNED, plan
from vnquant.errors import VnquantError
asked = json.loads(sys.argv[1])
prices = asked.pop("prices")
if unknown := sorted(set(asked) - PLANNED):
    sys.exit(f"there is no setting {', '.join(unknown)}; there are {', '.join(sorted(PLANNED))}")
try:
    job = plan(prices=pathlib.Path(prices) if prices else None, **asked)
except VnquantError as error:
    sys.exit(str(error))
sys.stdout.write(job.spec.canonical_json())
"""


@dataclass(frozen=True)
class TrainingResults:
    """What a finished run left.

    Attributes:
        run_id: the same for the same prices and settings, however often the machine was replaced.
        folder: the run on Drive; on the machine it is ``work``.
    """

    run_id: str
    folder: Path
    work: Path

    @property
    def verdict(self) -> str:
        """The verdict on the whole fleet, as markdown."""
        return (self.work / "evaluate" / "verdict.md").read_text(encoding="utf-8")

    @property
    def table(self) -> pd.DataFrame:
        """The newest forecast of every symbol, one row each; see `vnquant forecast`."""
        import pandas as pd

        return pd.read_csv(self.work / "forecast" / "forecast.csv")

    @property
    def report(self) -> Path:
        """One HTML file with everything: open it, or show it with ``IPython.display.HTML``."""
        return self.work / "report" / "report.html"


class ColabTrainingSetup:
    """Makes a Colab machine ready and trains on it; every step may be repeated.

    Args:
        drive: the folder that outlives the machine; default: ``vnquant`` on the mounted Drive, or
            VNQUANT_DRIVE.
        scratch: on the machine's own disk.
    """

    def __init__(self, drive: str | Path | None = None, scratch: str | Path = SCRATCH) -> None:
        self.drive = Path(drive or os.environ.get("VNQUANT_DRIVE") or DRIVE)
        self.scratch = Path(scratch)
        self.python = os.environ.get("VNQUANT_COLAB_PYTHON") or sys.executable
        self.gpu: str | None = None

    def initialize(self) -> None:
        """Mount Drive, make its folders, look for a GPU, install the locked requirements.

        Raises:
            UsageError: Drive has too little space, or PyTorch is missing or too old.
            RetryableError: Drive could not be mounted, or the requirements not be installed.
        """
        self._mount()
        for name in ("data", "models", "checkpoints", "logs", "configs"):
            (self.drive / name).mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.drive).free
        if free < agent.LEAST_DRIVE:
            raise UsageError(
                f"{free / 1e6:.0f} MB are left on Drive, and {agent.LEAST_DRIVE / 1e6:.0f} MB"
                " are needed",
                where=str(self.drive),
                fix="delete old runs there, and empty Drive's bin",
            )
        agent.say(f"Drive: {self.drive}, {free / 1e9:.1f} GB free")
        self._install()
        self.gpu = agent.gpu()
        agent.say(f"GPU: {self.gpu}" if self.gpu else NO_GPU)
        version = self._python("import torch; print(torch.__version__)").strip()
        if tuple(int(n) for n in version.split("+")[0].split(".")[:2]) < LEAST_TORCH:
            raise UsageError(
                f"PyTorch {version} is older than {'.'.join(map(str, LEAST_TORCH))}",
                where=self.python,
                fix="choose a newer runtime version (Runtime > Change runtime type)",
            )
        agent.say(f"PyTorch: {version}")

    def start_training(
        self,
        symbols: Sequence[str] = (),
        *,
        all_symbols: bool = False,
        prices: str | Path | None = None,
        preset: str = "base",
        words: Sequence[str] = (),
        **settings: Any,
    ) -> TrainingResults:
        """Train, judge and forecast; called again, it goes on where it stood.

        Args:
            symbols: such as ``["FPT", "VCB"]``.
            all_symbols: the 102 shares of the weekly run instead.
            prices: a file of prices; default: the newest one in ``data`` on Drive.
            preset: ``base`` or ``small``.
            words: options of ``vnquant run`` that say how to execute.
            settings: of the spec, as ``vnquant train`` names them: epochs=50, test_start=...

        Raises:
            UsageError: neither or both of ``symbols`` and ``all_symbols``; unknown settings.
            DataError: there are no prices, or they cannot be used.
            RetryableError: another machine is at work on this run, or this one was too small.
        """
        if bool(symbols) == all_symbols:
            raise UsageError(
                "say which symbols to train",
                where="start_training",
                fix='give symbols=["FPT", "VCB"], or all_symbols=True',
            )
        file = Path(prices) if prices else self._newest_prices()
        asked = dict.fromkeys(("start", "end", "validation_start", "test_start")) | settings
        asked |= {"symbols": list(symbols), "universe": "vn102" if all_symbols else None}
        text = self._python(PLAN, json.dumps(asked | {"preset": preset, "prices": str(file)}))
        run_id = self._run_id(text)
        return self._train(run_id, text, file, words)

    def _train(self, run_id: str, spec: str, prices: Path, words: Sequence[str]) -> TrainingResults:
        drive = agent.Drive(self.drive, run_id)
        workspace = self.scratch / "workspace"
        run = workspace / "runs" / run_id
        own = [path.stem for path in self.scratch.glob("notebook-*.log")]
        launch = f"notebook-{time.time_ns()}"
        if (why := agent.at_work(drive, own, SAVE_SECONDS)) is not None:
            raise RetryableError(
                why, where=f"run {run_id}", fix="wait a minute, or end it where it runs"
            )
        self.scratch.mkdir(parents=True, exist_ok=True)
        # The program keeps this lock as long as it lives, also when the notebook's kernel is gone.
        with (self.scratch / "lock").open("a+") as lock:
            self._await_earlier(lock, drive, run)
            if not run.exists():
                drive.restore(run)
            run.mkdir(parents=True, exist_ok=True)
            agent.write(run / "spec.json", spec.encode())
            agent.write(drive.config, spec.encode())
            command = [self.python, "-m", "vnquant", "run", *STAGES]
            command += ["--spec", str(run / "spec.json"), "--workspace", str(workspace)]
            command += ["--prices", str(prices), *words]
            code = self._attend(command, drive, run, launch, lock)
        log = self.scratch / f"{launch}.log"
        if code not in (OK, PARTIAL):
            raise _failure(code, log)
        agent.say(f"Run {run_id} is finished; its files are in {drive.models}.")
        return TrainingResults(run_id, drive.models, run)

    def _await_earlier(self, lock: IO[str], drive: agent.Drive, run: Path) -> None:
        """A program that an earlier kernel of this machine has left at work is let finish."""

        def ended() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not ended():
            newest = max(self.scratch.glob("notebook-*.log"), key=lambda p: p.stat().st_mtime_ns)
            agent.say(f"A program of an earlier kernel is still at work ({newest.stem}):")
            self._follow(newest, drive, run, ended)

    def _attend(
        self, command: list[str], drive: agent.Drive, run: Path, launch: str, lock: IO[str]
    ) -> int:
        """Start the program and follow it to its end; stopping the cell stops it."""
        log = self.scratch / f"{launch}.log"
        with log.open("wb") as out:
            child = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env=self._environment(),
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        try:
            self._follow(log, drive, run, lambda: child.poll() is not None)
        except KeyboardInterrupt:
            # The program saves a checkpoint first, and only then is it copied.
            child.send_signal(signal.SIGTERM)
            child.wait()
            self._follow(log, drive, run, lambda: True)
            raise
        return child.wait()

    def _follow(self, log: Path, drive: agent.Drive, run: Path, ended: Callable[[], bool]) -> None:
        """Show a program's lines in the cell, and copy to Drive what is finished meanwhile."""
        shown, saved = 0, 0.0
        while True:
            over = ended()
            shown = _show(log, shown)
            if over or time.monotonic() - saved > SAVE_SECONDS:
                phase = "ended" if over else "running"
                drive.keep(run, log, log.stem, phase, self.gpu)
                saved = time.monotonic()
            if over:
                return
            time.sleep(0.5)

    def _mount(self) -> None:
        if self.drive.is_dir() or not str(self.drive).startswith(str(DRIVE.parents[1])):
            return
        try:
            importlib.import_module("google.colab.drive").mount(str(DRIVE.parents[1]))
        except Exception as error:  # its errors are of many kinds, and all say the same
            raise RetryableError(
                f"Drive could not be mounted ({error})",
                where=str(self.drive),
                fix="run the cell again and grant access, or name another folder:"
                " ColabTrainingSetup(drive=...)",
            ) from error

    def _install(self) -> None:
        """The wheel and the lock that `vnquant colab wheel` put on Drive; torch stays as it is."""
        wheels = self.drive / "wheels"
        if not (wheels / "runtime.txt").exists():
            return  # installed by other means, such as in the CUDA image
        folder = self.scratch / "install"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(wheels, folder)
        try:
            agent.install(folder, self.python)
        except subprocess.CalledProcessError as error:
            raise RetryableError(
                f"pip ended with exit code {error.returncode}",
                where=str(wheels / "runtime.txt"),
                fix="look at its message above, and run the cell again",
            ) from error

    def _environment(self) -> dict[str, str]:
        site = self.scratch / "install" / "site"
        path = [str(site)] if site.exists() else []
        path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def _python(self, code: str, *words: str) -> str:
        done = subprocess.run(
            [self.python, "-c", code, *words],
            capture_output=True,
            text=True,
            env=self._environment(),
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UsageError(last, where=self.python, fix="correct what it names, run it again")
        return done.stdout

    def _run_id(self, spec: str) -> str:
        code = "import sys; from vnquant.spec import RunSpec\n"
        code += "print(RunSpec.model_validate_json(sys.argv[1]).run_id)"
        return self._python(code, spec).strip()

    def _newest_prices(self) -> Path:
        files = [p for p in (self.drive / "data").glob("*") if p.suffix in PRICES]
        if not files:
            raise DataError(
                "there are no prices",
                where=str(self.drive / "data"),
                fix="put a price file there (docs/prices.md says of what form)",
            )
        return max(files, key=lambda p: p.stat().st_mtime_ns)


NO_GPU = (
    "GPU: none; training on this machine's CPU takes many times as long. "
    "Choose one under Runtime > Change runtime type."
)


def _show(log: Path, begin: int) -> int:
    """Print what a log has gained, whole lines only; returns how far it was read."""
    with log.open("rb") as file:
        file.seek(begin)
        gained = file.read()
    whole = gained.rpartition(b"\n")[0]
    if not whole:
        return begin
    agent.say(whole.decode(errors="replace"))
    return begin + len(whole) + 1


def _failure(code: int, log: Path) -> VnquantError:
    """A failed run as an error: what, where, and whether to try again."""
    last = ""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("vnquant: ") if lines else ""
    kinds = {agent.USAGE: UsageError, agent.RETRY: RetryableError, 3: DataError}
    kind = kinds.get(code, RetryableError if code < 0 else VnquantError)
    said = last or f"the program ended with exit code {code}"
    return kind(said, where="vnquant run", fix="mend what it names, and run the cell again")
