"""Kernels compiled by processes of their own while prices are read: a GPU waits for nothing.

Only a head start: where it fails or comes too late, the run compiles what it needs as it goes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING

from vnquant.accelerators.affinity import given

if TYPE_CHECKING:
    from vnquant.stages.context import Context

MOST_PROCESSES = 8
"""A run has about 20 kernels, and the longest takes as long as several others."""
LIMIT_SECONDS = 120.0


class Precompiling:
    """The processes that fill Triton's cache for a run."""

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vnquant.training.precompile", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    def wait(self, seconds: float = LIMIT_SECONDS) -> str | None:
        """Wait for all of it; returns what went wrong, if anything did."""
        try:
            _, err = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"not finished after {seconds:.0f} s"
        code = self._process.returncode
        return (err.strip().splitlines() or [f"exit code {code}"])[-1] if code else None

    def stop(self) -> None:
        """End what is still at it; harmless, since Triton writes aside and renames."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


def start(ctx: Context) -> Precompiling | None:
    """Begin to compile a run's kernels, where a GPU will train it with Triton."""
    options = ctx.options
    if (
        options.device == "cpu"
        or options.compiled is False
        or ctx.spec.training.precision == "float32"
        or find_spec("triton") is None
        or which("nvidia-smi") is None
    ):
        return None
    threading.Thread(target=_open_gpu, name="open-gpu", daemon=True).start()
    count = max(1, min(MOST_PROCESSES, len(given()) // 2))
    return Precompiling([str(ctx.run.path / "spec.json"), "--processes", str(count)])


def _open_gpu() -> None:
    """Load torch and open the GPU, 7 s on an H100's host, while this process reads prices."""
    with contextlib.suppress(Exception):  # whoever needs the GPU will meet the error, and say so
        import torch

        torch.zeros(1, device="cuda")
