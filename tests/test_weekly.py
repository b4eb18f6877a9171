"""Waiting for the hour, on a clock that the test sets."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnquant import cli_weekly
from vnquant.errors import RETRY, RetryableError, UsageError
from vnquant.weekly import AGAIN, AT, DAYS, RETRIES, WEEK, ZONE, Slot, keep
from vnquant.workspace import locked, read_json

SUNDAY = Slot.parse(AT, ZONE)


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


class Fake:
    """A clock that sleeps at once. The loop ends at ``until``."""

    def __init__(self, start: str, until: str) -> None:
        self.time, self.until = utc(start), utc(until)

    def now(self) -> dt.datetime:
        return self.time

    def sleep(self, length: dt.timedelta) -> bool:
        self.time += length
        return self.time > self.until


def runs(path: Path, start: str, until: str, code: Callable[[int], int] = lambda _: 0) -> list[str]:
    """When the command was run between two moments (UTC)."""
    clock, seen = Fake(start, until), []

    def run() -> int:
        seen.append(f"{clock.time:%Y-%m-%d %H:%M}")
        return code(len(seen))

    keep(SUNDAY, path, run, clock, lambda _: None)
    return seen


def test_sunday_two_in_the_morning_is_saturday_evening_utc() -> None:
    # 2026-11-22 is a Sunday.
    assert SUNDAY.last(utc("2026-11-24 00:00")) == utc("2026-11-21 19:00")
    assert SUNDAY.after(utc("2026-11-24 00:00")) == utc("2026-11-28 19:00")
    assert SUNDAY.last(utc("2026-11-28 18:59")) == utc("2026-11-21 19:00")
    assert SUNDAY.last(utc("2026-11-28 19:00")) == utc("2026-11-28 19:00")
    assert SUNDAY.after(utc("2026-11-28 19:00")) == utc("2026-12-05 19:00")
    assert SUNDAY.calendar() == "Sun *-*-* 02:00:00 Asia/Ho_Chi_Minh"


@given(
    st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2030, 1, 1)),
    st.integers(0, 6),
    st.times(),
    st.sampled_from(["Asia/Ho_Chi_Minh", "Europe/Berlin", "UTC", "America/New_York"]),
)
def test_a_moment_lies_between_its_slots(
    moment: dt.datetime, day: int, time: dt.time, zone: str
) -> None:
    text = f"{DAYS[day]} {time:%H:%M}"
    slot, at = Slot.parse(text, zone), moment.replace(tzinfo=dt.UTC)
    last, after = slot.last(at), slot.after(at)
    assert last <= at < after
    # A week, give or take the hour by which clocks are changed.
    assert abs(after - last - WEEK) <= dt.timedelta(hours=1)
    assert after.astimezone(slot.zone).weekday() == day or zone != "Asia/Ho_Chi_Minh"


@pytest.mark.parametrize(
    ("at", "zone"), [("Sun", ZONE), ("Noday 02:00", ZONE), ("Sun 25:00", ZONE), (AT, "Mars/One")]
)
def test_a_time_that_says_nothing_is_refused(at: str, zone: str) -> None:
    with pytest.raises(UsageError, match="no time of the week"):
        Slot.parse(at, zone)


def test_it_runs_once_in_every_week(tmp_path: Path) -> None:
    assert runs(tmp_path, "2026-11-24 00:00", "2026-12-13 00:00") == [
        "2026-11-28 19:00",
        "2026-12-05 19:00",
        "2026-12-12 19:00",
    ]


def test_what_was_due_before_the_first_start_is_not_made_up_for(tmp_path: Path) -> None:
    assert runs(tmp_path, "2026-11-22 00:00", "2026-11-23 00:00") == []


def test_weeks_that_were_missed_are_made_up_for_by_one_run(tmp_path: Path) -> None:
    assert runs(tmp_path, "2026-11-24 00:00", "2026-11-25 00:00") == []
    assert runs(tmp_path, "2026-12-17 08:30", "2026-12-18 00:00") == ["2026-12-17 08:30"]
    assert runs(tmp_path, "2026-12-18 08:30", "2026-12-18 09:00") == [], "only once"


def test_a_run_that_was_cut_off_is_made_up_for(tmp_path: Path) -> None:
    def killed(_: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs(tmp_path, "2026-11-24 00:00", "2026-11-30 00:00", killed)
    assert runs(tmp_path, "2026-11-30 00:00", "2026-12-01 00:00") == ["2026-11-30 00:00"]


def test_what_is_worth_retrying_is_retried_and_then_left_to_next_week(tmp_path: Path) -> None:
    found = runs(tmp_path, "2026-11-28 18:00", "2026-12-05 18:00", lambda _: RETRY)
    assert len(found) == RETRIES + 1
    assert found[1] == f"{utc('2026-11-28 19:00') + AGAIN:%Y-%m-%d %H:%M}"
    other = runs(tmp_path / "x", "2026-11-28 18:00", "2026-12-05 18:00", lambda n: RETRY * (n < 2))
    assert len(other) == 2


def test_a_failure_waits_for_next_week(tmp_path: Path) -> None:
    assert len(runs(tmp_path, "2026-11-28 18:00", "2026-12-05 18:00", lambda _: 3)) == 1


def test_two_loops_in_one_workspace_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "weekly" / "lock"), pytest.raises(RetryableError, match="another loop"):
        runs(tmp_path, "2026-11-24 00:00", "2026-11-25 00:00")


def test_the_defaults_of_the_options_are_those_of_the_module() -> None:
    assert [o.default for o in cli_weekly.weekly.params[:2]] == [AT, ZONE]


# The command


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`vnquant weekly` with a slot that has been missed."""
    (tmp_path / "weekly").mkdir()
    (tmp_path / "weekly" / "last.json").write_text('{"slot": "2020-01-01T00:00:00+00:00"}')
    words = ["weekly", "-w", str(tmp_path), "registry", "list", "-w", str(tmp_path)]
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "vnquant", *words], stdout=subprocess.PIPE, text=True
    )
    yield child
    child.kill()
    child.wait()


def until(child: subprocess.Popen[str], says: str) -> str:
    assert child.stdout is not None
    text = ""
    for line in child.stdout:
        text += line
        if says in line:
            return text
    raise AssertionError(text)


def test_the_command_catches_up_then_waits_and_ends_politely(
    loop: subprocess.Popen[str], tmp_path: Path
) -> None:
    said = until(loop, "Next run: Sun")
    assert "Nothing has been deployed yet." in said
    assert "exit code 0" in said
    newest = SUNDAY.last(dt.datetime.now(dt.UTC))
    assert read_json(tmp_path / "weekly" / "last.json") == {"slot": newest.isoformat()}
    second = subprocess.run(
        [sys.executable, "-m", "vnquant", "weekly", "-w", str(tmp_path), "registry", "list"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == RETRY
    assert "another loop" in second.stderr
    began = time.monotonic()
    os.kill(loop.pid, signal.SIGTERM)
    assert loop.wait(timeout=20) == 0
    assert time.monotonic() - began < 10


def test_the_lock_does_not_outlive_a_killed_loop(
    loop: subprocess.Popen[str], tmp_path: Path
) -> None:
    until(loop, "Next run: Sun")
    loop.kill()
    loop.wait()
    with locked(tmp_path / "weekly" / "lock", wait=False) as free:
        assert free
