"""Kernels compiled by processes of their own while prices are read: a GPU waits for nothing.

Only a head start: where it fails or comes too late, the run compiles what it needs as it goes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from shutil import which
from typing import IO, TYPE_CHECKING

from vnquant.accelerators.affinity import given

if TYPE_CHECKING:
    from vnquant.stages.context import Context

MOST_PROCESSES = 8
"""Each takes seconds to load torch; a run has about 20 kernels."""
LIMIT_SECONDS = 120.0


class Precompiling:
    """The processes that fill Triton's cache for a run."""

    def __init__(self, words: list[str], count: int) -> None:
        part = ["--parts", str(count), "--part"]
        self._processes: list[subprocess.Popen[str]] = [
            subprocess.Popen(
                [sys.executable, "-m", "vnquant.training.precompile", *words, *part, str(i)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            for i in range(count)
        ]

    def wait(self, seconds: float = LIMIT_SECONDS) -> str | None:
        """Wait for all; returns what went wrong, if anything did."""
        end, wrong = time.monotonic() + seconds, None
        for process in self._processes:
            try:
                _, err = process.communicate(timeout=max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                wrong = f"not finished after {seconds:.0f} s"
                continue
            if process.returncode:
                wrong = (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        self.stop()
        return wrong

    def stop(self) -> None:
        """End those that are still at it; harmless, since Triton writes aside and renames."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            pipe: IO[str] | None = process.stderr
            if pipe is not None:
                pipe.close()
        self._processes.clear()


def start(ctx: Context) -> Precompiling | None:
    """Begin to compile a run's kernels, where a GPU will train it with Triton."""
    options = ctx.options
    if (
        options.device == "cpu"
        or options.compiled is False
        or ctx.spec.training.precision == "float32"
        or ctx.stage("train").done() is not None
        or find_spec("triton") is None
        or which("nvidia-smi") is None
    ):
        return None
    threading.Thread(target=_open_gpu, name="open-gpu", daemon=True).start()
    count = max(1, min(MOST_PROCESSES, len(given()) // 2))
    return Precompiling([str(ctx.run.path / "spec.json")], count)


def _open_gpu() -> None:
    """Load torch and open the GPU, 7 s on an H100's host, while this process reads prices."""
    with contextlib.suppress(Exception):  # whoever needs the GPU will meet the error, and say so
        import torch

        torch.zeros(1, device="cuda")
