"""Two workspaces and a store: shared folders go both ways, and nothing half-pulled looks whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from vnquant.errors import DataError, RetryableError
from vnquant.host import publishing, sync
from vnquant.host.publisher import Publisher
from vnquant.host.stores import Receipt

FILE = "configs/weekly.json"


class Side:
    """A workspace that pushes to and pulls from the store it shares with others."""

    def __init__(self, path: Path, remote: Path) -> None:
        self.path, self.remote = path, remote
        path.mkdir()

    def publisher(self) -> Publisher:
        return Publisher(self.path, str(self.remote), None, lambda _: None)

    def write(self, text: str, name: str = FILE) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def read(self, name: str = FILE) -> str:
        return (self.path / name).read_text()

    def push(self) -> None:
        with (publisher := self.publisher()).alone():
            publisher.drain(1)

    def pull(self) -> list[Path]:
        """Returns what is kept beside."""
        with (publisher := self.publisher()).alone():
            return sync.pull(publisher)[1]


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Side, Side]:
    here, there = (Side(tmp_path / n, tmp_path / "remote") for n in ("here", "there"))
    here.write("one")
    here.push()
    assert there.pull() == []
    assert there.read() == "one"
    return here, there


def test_an_edit_travels_either_way(sides: tuple[Side, Side]) -> None:
    here, there = sides
    there.write("two")
    there.push()
    assert here.pull() == []
    assert here.read() == "two"
    here.write("three")
    here.push()
    assert there.pull() == []
    assert there.read() == "three"


def test_an_edit_that_is_not_pushed_survives_a_pull(sides: tuple[Side, Side]) -> None:
    _, there = sides
    there.write("mine")
    assert there.pull() == []
    assert there.read() == "mine"
    with (publisher := there.publisher()).alone():
        assert sync.compare(publisher).unpublished == [FILE]


def test_edits_on_both_sides_are_both_kept(sides: tuple[Side, Side]) -> None:
    here, there = sides
    here.write("left")
    here.push()
    there.write("right")
    (rival,) = there.pull()
    assert there.read() == "right"
    assert rival.read_text() == "left"
    assert there.pull() == [], "it is told once"
    there.push()
    assert there.read() == "right"
    # On the other side nothing was edited since, so the newest is taken over.
    assert here.pull() == []
    assert here.read() == "right"
    stored = {p.read_text() for p in here.remote.rglob("weekly*.json") if "receipts" not in p.parts}
    assert stored == {"one", "left", "right"}, "the remote still has every version"
    assert [p.name for p in (here.path / "configs").iterdir()] == ["weekly.json"]


def test_check_names_what_is_older_here(sides: tuple[Side, Side]) -> None:
    here, there = sides
    here.write("newer")
    here.push()
    with (publisher := there.publisher()).alone():
        found = sync.verify(publisher)
    assert [r.name for r in found.behind] == [FILE]
    assert not found.damaged


def test_a_damaged_remote_takes_nothing_that_is_here(sides: tuple[Side, Side]) -> None:
    here, there = sides
    here.write("newer")
    here.push()
    for path in here.remote.rglob("weekly*.json"):
        if path.read_text() == "newer":
            path.write_text("rubbish")
    with pytest.raises(DataError, match="not what its receipt says"):
        there.pull()
    assert there.read() == "one"


def test_a_pull_cut_short_leaves_no_model_without_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (Side(tmp_path / n, tmp_path / "remote") for n in ("here", "there"))
    for name in ("models/FPT.m0.safetensors", "models/FPT.m0.json", "DONE.json"):
        here.write(name, f"runs/r/train/{name}")
    here.push()
    publisher = there.publisher()
    fetch, calls = publisher.store.fetch, []

    def cut(receipts: Sequence[Receipt], into: Path) -> list[Path]:
        if calls:
            raise RetryableError("the remote has gone")
        calls.append(receipts)
        return fetch(receipts, into)

    monkeypatch.setattr(publisher.store, "fetch", cut)
    with publisher.alone(), pytest.raises(RetryableError):
        sync.pull(publisher)
    found = [p.name for p in (there.path / "runs").rglob("*") if p.is_file()]
    assert found == ["FPT.m0.safetensors"]


def test_a_launch_goes_on_when_nothing_can_be_brought(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = sides
    here.write("two")
    here.push()
    (said,) = publishing.bring(there.path, str(there.remote), ("configs/",))
    assert "1 files brought back" in said
    assert there.read() == "two"
    monkeypatch.setattr(sync, "pull", lambda *_: (_ for _ in ()).throw(DataError("damaged")))
    (said,) = publishing.bring(there.path, str(there.remote), ("configs/",))
    assert "Not everything was brought back" in said


def test_a_publisher_at_work_does_not_stop_a_launch(sides: tuple[Side, Side]) -> None:
    _, there = sides
    with there.publisher().alone():
        (said,) = publishing.bring(there.path, str(there.remote), ("configs/",))
    assert "another publisher is at work" in said
    assert os.listdir(there.path / "configs") == ["weekly.json"]
