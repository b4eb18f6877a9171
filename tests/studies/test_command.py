"""``vnquant study`` from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vnquant.studies.definition import shipped


def vnquant(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vnquant", "study", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_a_name_it_lists_what_there_is(tmp_path: Path) -> None:
    done = vnquant("-w", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(shipped())


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    done = vnquant("nosuch", "-w", str(tmp_path))
    assert done.returncode == 2
    assert "there is no study nosuch" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_study_of_ones_own_leaves_its_answer(tmp_path: Path) -> None:
    own = {
        "name": "mine",
        "question": "Is a quarter of the rate enough?",
        "metric": "brier",
        "variants": [
            {"name": "as given"},
            {"name": "a quarter", "overrides": {"training": {"learning_rate": 1.25e-4}}},
        ],
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    words = [
        *(str(tmp_path / "own.json"), "-w", str(tmp_path / "w"), "--symbols", "FPT", "VCB"),
        *("--preset", "small", "--epochs", "1", "--start", "2019-01-01", "--folds", "1"),
        *("--threads", "1"),
    ]
    first = vnquant(*words)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("train:") > 0
    (folder,) = (tmp_path / "w" / "studies").iterdir()
    found = json.loads((folder / "result.json").read_text())
    assert [t["name"] for t in found["trials"]] == ["as given", "a quarter"]
    assert found["trials"][1]["against_first"]["rows"] == found["trials"][0]["n"]
    assert found["recommendation"] in first.stdout
    assert (folder / "result.svg").read_text().startswith("<svg")
    again = vnquant(*words)
    assert again.stdout == first.stdout
    assert "walk_forward" not in again.stderr, "nothing is looked at again"
