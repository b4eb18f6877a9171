"""The scripts of docker/ that run while an image is built, and the health check inside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
Script = Callable[[str], ModuleType]


def process(proc: Path, pid: int, user: int, system: int) -> None:
    """A line of /proc as the kernel writes it; the name may hold blanks and brackets."""
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    fields = ["S", *["0"] * 10, str(user), str(system), "999", "999"]
    (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) {' '.join(fields)}\n")


def test_processor_time_is_that_of_all_processes_but_ours(script: Script, tmp_path: Path) -> None:
    health = script("health")
    ticks = os.sysconf("SC_CLK_TCK")
    process(tmp_path, 1, ticks, ticks)
    process(tmp_path, 7, 2 * ticks, 0)
    process(tmp_path, os.getpid(), 50 * ticks, 0)
    (tmp_path / "meminfo").touch()
    assert health.processor_seconds(tmp_path) == pytest.approx(4.0)


@pytest.fixture
def health(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("health")
    monkeypatch.setenv("VNQUANT_WORKSPACE", str(tmp_path))
    monkeypatch.setattr(module, "SEEN", tmp_path / "seen")
    return module


def test_a_process_that_computes_is_healthy(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    health.SEEN.write_text(f"10.0 {time.time() - 1000}")
    monkeypatch.setattr(health, "processor_seconds", lambda: 10.5)
    assert health.main() == 0


def test_a_process_that_does_nothing_for_long_is_not(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "processor_seconds", lambda: 10.0)
    assert health.main() == 0  # the first look has nothing to compare with
    assert health.main() == 0  # idle, but not yet for long
    health.SEEN.write_text(f"10.0 {time.time() - health.IDLE - 1}")
    assert health.main() == 1
    assert "nothing written" in capsys.readouterr().out


@pytest.mark.parametrize("sign", ["runs/abc/events.jsonl", "publish/status.json"])
def test_a_file_just_written_is_a_sign_of_life(
    health: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.setattr(health, "processor_seconds", lambda: 10.0)
    health.SEEN.write_text(f"10.0 {time.time() - health.IDLE - 1}")
    (tmp_path / sign).parent.mkdir(parents=True)
    (tmp_path / sign).touch()
    assert health.main() == 0


def compile_new(folder: Path, stamp: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "docker" / "bytecode.py"), str(folder), str(stamp)]
    return subprocess.run(words, capture_output=True, text=True)


def stamped(path: Path, after: Path) -> Path:
    """A stamp whose time of change is really later: the file system's clock is a coarse one."""
    path.touch()
    while path.stat().st_ctime_ns <= after.stat().st_ctime_ns:
        path.touch()
    return path


def test_only_new_modules_are_compiled_and_never_by_date(tmp_path: Path) -> None:
    library = tmp_path / "lib" / "site"
    library.mkdir(parents=True)
    (library / "old.py").write_text("x = 1\n")
    stamp = stamped(tmp_path / "stamp", after=library / "old.py")
    (library / "new.py").write_text("x = 2\n")
    # What decides is the time of the installation, not the date that a wheel gave the file.
    os.utime(library / "new.py", (1, 1))
    done = compile_new(tmp_path, stamp)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made = list(library.rglob("*.pyc"))
    assert [p.name.partition(".")[0] for p in made] == ["new"]
    flags = int.from_bytes(made[0].read_bytes()[4:8], "little")
    assert flags == 0b01  # hash-based, and not checked against the source


def test_a_module_that_does_not_compile_fails_the_build(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    (library / "torch/testing/_internal").mkdir(parents=True)
    stamp = tmp_path / "stamp"
    stamp.touch()
    (library / "torch/testing/_internal/py312_intrinsics.py").write_text("!\n")
    assert compile_new(tmp_path, stamp).returncode == 0  # known to need a newer Python
    (library / "bad.py").write_text("!\n")
    done = compile_new(tmp_path, stamp)
    assert done.returncode == 1
    assert "bad.py" in done.stderr
