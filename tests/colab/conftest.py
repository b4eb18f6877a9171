"""The real ``colab`` command against the loopback emulator, which lies beside the repository."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("VNQUANT_SHARED") or ROOT.parent / "shared")

EMULATOR = SHARED / "colab_emulator" / "colab_emulator.py"
TOOL = Path(os.environ.get("VNQUANT_COLAB_TOOL") or ROOT / "build" / "colab-tool")
"""Kept from before the shell's variables are hidden from tests."""


class Emulator:
    """The backend, its one account, and what can be done to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = (root / "emulator.log").open("wb")
        words = ["--root", str(root / "state"), "--port", "0", "--isolation", "link"]
        self.process = subprocess.Popen(
            [str(TOOL / "bin" / "python"), str(EMULATOR), *words],
            stdout=self.log, stderr=self.log, start_new_session=True,
        )  # fmt: skip
        port = root / "state" / "port"
        until = time.monotonic() + 60
        while not port.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                self.close()
                raise RuntimeError((root / "emulator.log").read_text())
            time.sleep(0.1)
        self.port = int(port.read_text())
        self.colab = root / "state" / "clients" / "dev@example.test" / "colab"

    def control(self, what: str) -> None:
        url = f"http://127.0.0.1:{self.port}/_control/{what}"
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60).read()

    def machines(self) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}/_control/state"
        with urllib.request.urlopen(url, timeout=60) as answer:
            found: Any = json.load(answer)
        return [v for v in found["vms"] if v["alive"]]

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    if not EMULATOR.is_file():
        pytest.skip("the Colab emulator is not here (../shared/colab_emulator)")
    if not (TOOL / "bin" / "colab").exists():
        pytest.skip("the colab command is not installed (python tools/colab.py --test)")
    content = Path("/content")
    if os.geteuid() != 0 or (content.exists() and not content.is_symlink()):
        pytest.skip("the emulator needs to make the link /content, as root")
    (tmp_path / "emulator").mkdir()
    with (Path(tempfile.gettempdir()) / "vnquant-content.lock").open("a") as lock:
        # The link is the machine's: other tests, those of another checkout too, wait here.
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = Emulator(tmp_path / "emulator")
        monkeypatch.setenv("VNQUANT_COLAB", str(running.colab))
        monkeypatch.setenv("VNQUANT_COLAB_PYTHON", sys.executable)
        monkeypatch.setenv("VNQUANT_COLAB_POLL", "1")
        try:
            yield running
        finally:
            end_controllers(tmp_path, running.process.pid)
            running.close()
            if content.is_symlink():
                content.unlink()
            shutil.rmtree(tmp_path / "emulator", ignore_errors=True)


def end_controllers(place: Path, spared: int) -> None:
    """Kill what a test that failed has left: our children that were given a path of its folder."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.pid != spared and str(place) in " ".join(child.cmdline()):
                child.kill()
