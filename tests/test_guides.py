"""The commands in the guides: run in a sandbox, or where a page says why not, at least parsed.

In the sandbox ``vnquant train`` makes small models of one epoch, and systemctl only says yes.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from vnquant.__main__ import commands
from vnquant.argv import normalise

PAGES = ("guide.md", "hybrid.md", "schedule.md", "summary.md", "weekly.md")
BLOCK = re.compile(r"(?:<!-- (?P<why>[^>]*) -->\n)?```sh\n(?P<text>.*?)```", re.DOTALL)
NOT_RUN = "not run: "
SMALL = "--preset small --epochs 1 --start 2019-01-01 --threads 1"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Of each block the comment before it, if any, and its text."""
    text = page.read_text(encoding="utf-8")
    return [(found["why"] or "", found["text"]) for found in BLOCK.finditer(text)]


def command(root: click.Group, words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words name, and its own words."""
    found: click.Command = root
    while isinstance(found, click.Group):
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.fixture
def sandbox(tmp_path: Path, repository: Path) -> dict[str, str]:
    """An environment with a home, a workspace, a vnquant and a systemctl of its own."""
    tools = tmp_path / "bin"
    tools.mkdir()
    start = f'"{sys.executable}" -m vnquant "$@"'
    scripts = {
        "vnquant": f'[ "$1" = train ] && exec {start} {SMALL}\nexec {start}\n',
        "systemctl": "exit 0\n",
    }
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}")
        (tools / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(repository),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_guide_work(
    name: str, repository: Path, sandbox: dict[str, str], tmp_path: Path
) -> None:
    texts = [text for why, text in blocks(repository / "docs" / name)
             if not why.startswith(NOT_RUN)]  # fmt: skip
    assert texts
    for text in texts:
        done = subprocess.run(
            ["sh", "-e", "-c", text],
            cwd=tmp_path, env=sandbox, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("name", PAGES)
def test_what_is_not_run_says_why_and_is_understood(name: str, repository: Path) -> None:
    lines = [
        line
        for why, text in blocks(repository / "docs" / name)
        if why.startswith(NOT_RUN) and len(why) > len(NOT_RUN)
        for line in text.splitlines()
    ]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0] == "vnquant":
            found, rest = command(commands(), words[1:])
            found.make_context(str(found.name), normalise(rest))


def test_every_command_of_every_page_is_understood(repository: Path) -> None:
    pages = [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages if page.name != "commands.md"]
    shown = [line for text in texts for found in BLOCK.finditer(text)
             for line in found["text"].splitlines()]  # fmt: skip
    shown += [line.strip() for text in texts for line in text.splitlines() if line[:4] == " " * 4]
    lines = [line for line in shown if line.startswith("vnquant ")]
    assert len(lines) > len(pages)
    for line in lines:
        words = shlex.split(line, comments=True)
        words = words[: words.index("||")] if "||" in words else words
        found, rest = command(commands(), words[1:])
        found.make_context(str(found.name), normalise(rest))


def test_a_flag_that_is_gone_would_be_seen() -> None:
    found, rest = command(commands(), ["train", "--modus", "hybrid"])
    with pytest.raises(click.UsageError):
        found.make_context("train", rest)
