"""Child processes: their ends, their secrets, their lives."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from vnquant.errors import RetryableError, UsageError
from vnquant.host import process
from vnquant.host.cpus import parse, written


def test_output_and_code() -> None:
    done = process.run([sys.executable, "-c", "print('out'); raise SystemExit(3)"], check=False)
    assert (done.code, done.out.strip()) == (3, "out")


def test_a_failure_quotes_the_end_without_secrets() -> None:
    code = "import sys; sys.exit('x' * 900 + ' url http://u:pw@h/ pass = geheim token: abc')"
    with pytest.raises(RetryableError) as caught:
        process.run([sys.executable, "-c", code])
    text = str(caught.value)
    assert "exit code 1" in text
    assert not any(secret in text for secret in ("pw@", "geheim", "abc"))


def test_a_missing_program_and_a_slow_one() -> None:
    with pytest.raises(UsageError, match="not installed"):
        process.run(["no-such-program-anywhere"])
    with pytest.raises(RetryableError, match="did not answer"):
        process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5)


def test_a_started_child_goes_on_alone_on_its_cpus(tmp_path: Path) -> None:
    own = os.sched_getaffinity(0)
    cpu = min(own)
    code = "import os, time; print(sorted(os.sched_getaffinity(0)), flush=True); time.sleep(60)"
    pid = process.start([sys.executable, "-c", code], log=tmp_path / "log", cpus=[cpu])
    try:
        assert os.sched_getaffinity(0) == own
        assert os.getsid(pid) == pid
        started = process.started_at(pid)
        assert started is not None
        assert process.alive(pid, started)
        assert not process.alive(pid, started - 100), "another process that had this number"
        until = time.monotonic() + 20
        while not (tmp_path / "log").read_text() and time.monotonic() < until:
            time.sleep(0.02)
        assert (tmp_path / "log").read_text().strip() == f"[{cpu}]"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert process.started_at(pid) is None


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8", (0, 1, 2, 3, 8)), ("5", (5,)), ("", ()), ("1,1-2", (1, 2))]
)
def test_lists_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert parse(text) == cpus
    assert parse(written(cpus)) == cpus


@pytest.mark.parametrize("text", ["a", "3-1", "-2", "1-"[:1] + "--2"])
def test_no_list_of_cpus(text: str) -> None:
    with pytest.raises(UsageError, match="0-7,16"):
        parse(text)
