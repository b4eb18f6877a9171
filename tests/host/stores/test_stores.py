"""One set of promises that every store keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vnquant.errors import DataError, UsageError
from vnquant.host.stores import Artefact, Store, beside, checked_name, open_store

KINDS = ["directory", pytest.param("rclone", marks=pytest.mark.rclone)]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Path]:
    """A store, and the folder in which its files can be seen."""
    if request.param == "directory":
        root = tmp_path / "store"
        return open_store(f"directory:{root}", cache=tmp_path / "cache"), root
    remote = request.getfixturevalue("remote")
    return open_store("t:vn", cache=tmp_path / "cache"), remote.root / "vn"


def made(tmp_path: Path, name: str, content: bytes) -> Artefact:
    path = tmp_path / "local" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Artefact(name, path)


def test_what_is_published_has_receipts_and_comes_back_the_same(place: Any, tmp_path: Path) -> None:
    store, root = place
    contents = {f"runs/a/models/{i}.bin": bytes([i]) * (1000 * i + 1) for i in range(12)}
    contents["runs/a/empty.json"] = b""
    receipts = store.publish([made(tmp_path, n, c) for n, c in contents.items()])
    assert {r.name: r.size for r in receipts} == {n: len(c) for n, c in contents.items()}
    assert all((root / r.stored).read_bytes() == contents[r.name] for r in receipts)
    assert store.receipts() == {r.name: r for r in receipts}
    fetched = store.fetch(store.receipts().values(), tmp_path / "back")
    assert {p.relative_to(tmp_path / "back").as_posix() for p in fetched} == set(contents)
    assert all((tmp_path / "back" / n).read_bytes() == c for n, c in contents.items())


def test_the_same_again_changes_nothing(place: Any, tmp_path: Path) -> None:
    store, root = place
    artefact = made(tmp_path, "runs/a/x.bin", b"x" * 999)
    store.publish([artefact])
    before = (root / "runs/a/x.bin").stat()
    again = store.publish([artefact])
    assert again[0].stored == "runs/a/x.bin"
    assert (root / "runs/a/x.bin").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("other", [b"other bytes", b"sAme size"])
def test_other_bytes_of_a_name_are_kept_beside(place: Any, tmp_path: Path, other: bytes) -> None:
    store, root = place
    store.publish([made(tmp_path, "runs/a/x.json", b"same size")])
    (receipt,) = store.publish([made(tmp_path, "runs/a/x.json", other)])
    assert receipt.stored == beside("runs/a/x.json", receipt.sha256) != receipt.name
    assert (root / "runs/a/x.json").read_bytes() == b"same size"
    assert (root / receipt.stored).read_bytes() == other
    store.fetch([store.receipts()["runs/a/x.json"]], tmp_path / "back")
    assert (tmp_path / "back/runs/a/x.json").read_bytes() == other


def test_a_file_without_receipt_is_not_saved(place: Any, tmp_path: Path) -> None:
    store, root = place
    store.publish([made(tmp_path, "runs/a/x", b"x")])
    (root / "runs/a/stump").write_bytes(b"cut sho")
    assert set(store.receipts()) == {"runs/a/x"}


def test_damage_in_the_store_is_found_when_fetching(place: Any, tmp_path: Path) -> None:
    store, root = place
    (receipt,) = store.publish([made(tmp_path, "runs/a/x", b"x" * 100)])
    (root / "runs/a/x").write_bytes(b"y" * 100)
    with pytest.raises(DataError, match="not what its receipt says"):
        store.fetch([receipt], tmp_path / "back")
    assert not (tmp_path / "back/runs/a/x").exists()


def test_a_damaged_receipt_counts_for_nothing(place: Any, tmp_path: Path) -> None:
    store, root = place
    store.publish([made(tmp_path, "runs/a/x", b"x")])
    store.publish([made(tmp_path, "runs/a/y", b"y")])
    newest = max((root / "receipts").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    lost = json.loads(newest.read_text())["files"][0]["name"]
    newest.write_bytes(newest.read_bytes()[:-20])
    fresh = open_store("t:vn", cache=tmp_path / "cache2") if store.address == "t:vn" else store
    assert set(fresh.receipts()) == {"runs/a/x", "runs/a/y"} - {lost}


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", ".incoming/x", "receipts/x", ""])
def test_names_stay_inside(place: Any, tmp_path: Path, name: str) -> None:
    store, _ = place
    with pytest.raises(DataError):
        store.publish([Artefact(name, made(tmp_path, "x", b"x").path)])


def test_strange_but_legal_names(place: Any, tmp_path: Path) -> None:
    store, _ = place
    names = ["runs/a/ä b&c.json", "runs/a/#1;x [2].json", "runs/a/'q\".json"]
    store.publish([made(tmp_path, n, n.encode()) for n in names])
    fetched = store.fetch(store.receipts().values(), tmp_path / "back")
    assert {p.read_bytes().decode() for p in fetched} == set(names)


def test_preflight_says_that_it_can_be_used(place: Any) -> None:
    store, _ = place
    assert all(f.ok for f in store.preflight())


def test_addresses(tmp_path: Path) -> None:
    assert open_store("./x", cache=tmp_path).address.endswith("/x")
    assert open_store("gdrive:VN/", cache=tmp_path).address == "gdrive:VN"
    with pytest.raises(UsageError, match="neither a remote nor a folder"):
        open_store("nonsense", cache=tmp_path)
    with pytest.raises(DataError):
        checked_name("a\nb")


def test_a_secret_in_an_address_is_not_shown(tmp_path: Path) -> None:
    store = open_store(":webdav,url='http://h/',user=u,pass=geheim:x", cache=tmp_path)
    assert "geheim" not in store.address
