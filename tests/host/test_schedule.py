"""The systemd units: what they say, and what systemd itself makes of them."""

from __future__ import annotations

import configparser
import datetime as dt
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from vnquant.errors import RetryableError, UsageError
from vnquant.host import schedule
from vnquant.weekly import AT, ZONE, Slot

SUNDAY = Slot.parse(AT, ZONE)
WORDS = ("train", "--mode", "local", "--symbols", "FPT")
systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed here"
)


def vnquant(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vnquant", *words],
        capture_output=True, text=True, check=False, **more,
    )  # fmt: skip


def read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_the_timer_catches_up_and_the_service_knows_our_exit_codes(tmp_path: Path) -> None:
    found = schedule.units(WORDS, SUNDAY, tmp_path, system=False)
    timer, service = read(found[schedule.TIMER]), read(found[schedule.SERVICE])
    assert timer["Timer"]["OnCalendar"] == "Sun *-*-* 02:00:00 Asia/Ho_Chi_Minh"
    assert timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert service["Service"]["SuccessExitStatus"] == "4"
    assert service["Service"]["RestartForceExitStatus"] == "5"
    assert service["Service"]["WorkingDirectory"] == str(tmp_path)
    assert shlex.split(service["Service"]["ExecStart"]) == [sys.executable, "-m", "vnquant", *WORDS]


def test_words_reach_the_command_as_they_were_given() -> None:
    assert schedule.quoted('a "b" 100% $HOME \\') == '"a \\"b\\" 100%% $$HOME \\\\"'


@systemd
@pytest.mark.parametrize("system", [False, True])
def test_systemd_accepts_the_units(system: bool, tmp_path: Path) -> None:
    words = (*WORDS, "--prices", "/x/100 % of $it")
    for name, text in schedule.units(words, SUNDAY, tmp_path, system=system).items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / n) for n in (schedule.SERVICE, schedule.TIMER)]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if schedule.NAME in line] == []
    schedule.check(tmp_path)


@systemd
def test_what_systemd_does_not_accept_is_refused_and_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slot, "calendar", lambda _: "Someday 02:00")
    with pytest.raises(UsageError, match="Someday"):
        schedule.install(WORDS, SUNDAY, system=False, into=tmp_path / "units")
    assert list((tmp_path / "units").iterdir()) == []


@systemd
def test_systemd_and_we_mean_the_same_hour() -> None:
    done = subprocess.run(
        ["systemd-analyze", "calendar", SUNDAY.calendar()],
        capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    found = re.search(r"Next elapse: \w+ (\S+ \S+) UTC", done.stdout)
    assert found is not None, done.stdout
    due = SUNDAY.after(dt.datetime.now(dt.UTC))
    assert found[1] == f"{due:%Y-%m-%d %H:%M:%S}"


def test_without_an_answer_from_systemd_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(schedule, "check", lambda _: None)

    def away(*_: str, **__: bool) -> str:
        raise RetryableError("no bus")

    monkeypatch.setattr(schedule, "systemctl", away)
    with pytest.raises(RetryableError):
        schedule.install(WORDS, SUNDAY, system=False)
    assert list((tmp_path / "systemd" / "user").iterdir()) == []


def test_installed_shown_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a systemctl that only notes what it is told."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "systemctl"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\necho "NEXT LEFT UNIT"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = vnquant("schedule", "install", "--", "--mode", "local", "--symbols", "FPT", "VCB")
    assert done.returncode == 0, done.stderr
    assert "Next run: Sun" in done.stdout
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["--user daemon-reload", f"--user enable --now {schedule.TIMER}"]
    shown = vnquant("schedule", "show").stdout
    assert "OnCalendar=Sun *-*-* 02:00:00 Asia/Ho_Chi_Minh" in shown
    assert '"--symbols" "FPT" "VCB"' in shown
    assert "NEXT LEFT UNIT" in shown
    assert vnquant("schedule", "remove").stdout.count("Deleted") == 2
    assert list((tmp_path / "systemd" / "user").iterdir()) == []
    assert "There is no timer" in vnquant("schedule", "show").stdout
    assert "There is no timer" in vnquant("schedule", "remove").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--symbols", "FPT"), "--mode"),
        (("--mode", "local", "--unheard-of"), "--unheard-of"),
    ],
)
def test_a_mistake_is_found_now_not_on_sunday(
    words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = vnquant("schedule", "install", "--into", str(tmp_path / "u"), "--", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "u").exists()


def test_the_compose_service_waits_and_trains(repository: Path) -> None:
    """What it runs is a command line that the program understands."""
    from vnquant.__main__ import commands

    service = yaml.safe_load((repository / "compose" / "schedule.yaml").read_text())["services"]
    words = [re.sub(r"\$\{\w+:-(.*)\}", r"\1", w) for w in service["weekly"]["command"]]
    assert service["weekly"]["entrypoint"][-1] == "vnquant"
    group = commands()
    weekly = group.commands[words[0]].make_context("weekly", words[1:])
    train = group.commands["train"].make_context("train", list(weekly.params["words"][1:]))
    assert (weekly.params["at"], weekly.params["zone"]) == (AT, ZONE)
    assert str(train.params["prices"]) == "/prices"
    assert service["weekly"]["profiles"] == ["schedule"]
