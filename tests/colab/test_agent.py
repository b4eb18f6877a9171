"""The agent's own parts, without a machine: what is saved, brought back, pruned and installed."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

from vnquant import colab_agent as agent
from vnquant.colab_agent import KEEP, Drive, missing


def checkpoint(run: Path, sequence: int, stage: str = "train") -> None:
    for ending in ("safetensors", "json"):
        path = run / stage / "checkpoints" / f"{sequence:06d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{sequence} {ending}")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_saved_comes_back_whole_and_without_locks(tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    checkpoint(run, 1)
    (run / "train" / "DONE.json").write_text("{}")
    (run / "lock").write_text("1")
    (run / "train" / "a.lock").write_text("")
    Drive(tmp_path / "drive", "r").save(run)
    Drive(tmp_path / "drive", "r").restore(again)
    found = sorted(p.relative_to(again).as_posix() for p in again.rglob("*") if p.is_file())
    assert found == [
        "train/DONE.json",
        "train/checkpoints/000001.json",
        "train/checkpoints/000001.safetensors",
    ]
    tree = names(tmp_path / "drive")
    assert tree == ["checkpoints", "configs", "data", "logs", "models"]


def test_the_newest_three_complete_checkpoints_stay(tmp_path: Path) -> None:
    run = tmp_path / "run"
    drive = Drive(tmp_path / "drive", "r")
    for sequence in range(1, 7):
        checkpoint(run, sequence)
    drive.save(run)
    assert len(names(drive.checkpoints)) == 12, "all are needed"
    for path in (run / "train" / "checkpoints").iterdir():
        path.unlink()
    (drive.checkpoints / "000007.json").write_text("its tensors never came")
    drive.save(run)
    kept = [p.stem for p in sorted(drive.checkpoints.glob("*.json"))]
    assert kept == ["000004", "000005", "000006"]
    assert len(kept) == KEEP


@pytest.mark.parametrize("stage", ["train/pretrain", "walk_forward", "walk_forward/pretrain"])
def test_checkpoints_of_every_kind_are_pruned_and_come_back(tmp_path: Path, stage: str) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    drive = Drive(tmp_path / "drive", "r")
    for sequence in range(1, 7):
        checkpoint(run, sequence, stage)
    drive.save(run)
    there = drive.models / stage / "checkpoints"
    assert len(names(there)) == 12, "all are needed"
    for path in (run / stage / "checkpoints").iterdir():
        path.unlink()
    checkpoint(run, 1)  # of the same name, in another folder: it keeps nothing here
    (there / "000007.json").write_text("its tensors never came")
    drive.save(run)
    drive.restore(again)
    kept = sorted(p.stem for p in (again / stage / "checkpoints").glob("*.json"))
    assert kept == ["000004", "000005", "000006"]
    assert names(drive.checkpoints) == ["000001.json", "000001.safetensors"]


def test_a_checkpoint_that_is_pruned_meanwhile_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, written = tmp_path / "run", agent.write
    drive = Drive(tmp_path / "drive", "r")
    checkpoint(run, 1)
    checkpoint(run, 2)
    (run / "events.jsonl").write_text("newest\n")

    def prune_then_write(path: Path, content: bytes) -> None:
        for old in (run / "train" / "checkpoints").glob("000002.*"):
            old.unlink()
        written(path, content)

    monkeypatch.setattr(agent, "write", prune_then_write)
    drive.save(run)
    assert (drive.models / "events.jsonl").read_text() == "newest\n"
    assert names(drive.checkpoints) == ["000001.json", "000001.safetensors"]


def test_only_what_has_changed_is_copied_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    drive = Drive(tmp_path / "drive", "r")
    checkpoint(run, 1)
    drive.save(run)
    copy = drive.checkpoints / "000001.json"
    copy.write_text("as it is on Drive")
    drive.save(run)
    assert copy.read_text() == "as it is on Drive"
    (run / "train" / "checkpoints" / "000001.json").write_text("another length")
    drive.save(run)
    assert copy.read_text() == "another length"


def test_a_file_of_the_future_waits(tmp_path: Path) -> None:
    """It may have been written while the listing went on, before what it vouches for was seen."""
    run = tmp_path / "run"
    drive = Drive(tmp_path / "drive", "r")
    checkpoint(run, 1)
    os.utime(run / "train" / "checkpoints" / "000001.json", (2e9, 2e9))
    drive.save(run)
    assert names(drive.checkpoints) == ["000001.safetensors"]


def test_only_what_the_machine_lacks_is_installed(tmp_path: Path) -> None:
    lock = tmp_path / "runtime.txt"
    have = f"pydantic=={importlib.metadata.version('pydantic')} \\\n    --hash=sha256:00\n"
    lock.write_text(f"# comment\n{have}numpy==0.0.1 \\\n    --hash=sha256:11\nnone==1 ; x\n")
    assert missing(lock).splitlines() == [
        "numpy==0.0.1 \\",
        "    --hash=sha256:11",
        "none==1 ; x",
    ]


def test_the_agent_needs_nothing_but_python() -> None:
    tree = ast.parse(Path(agent.__file__).read_text())
    imported = {n.names[0].name for n in ast.walk(tree) if isinstance(n, ast.Import)}
    imported |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names | {"__future__"}
