"""`vnquant registry`: what each command prints, changes, and ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vnquant.cli import cli, invoke
from vnquant.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Four sets, the last one current."""
    found = Registry(tmp_path / "w" / "registry")
    for text in ("one", "two", "three", "four"):
        source = tmp_path / text
        source.mkdir()
        (source / "model").write_text(text)
        meta = {"run_id": text, "symbols": ["FPT"]}
        found.promote(source, meta, {"passed": True, "reason": "ok"})
    return found


def call(registry: Registry, *words: str) -> int:
    own = ["--workspace", str(registry.root.parent)]
    return invoke(lambda: cli.main(["registry", *words, *own], standalone_mode=False))


def runs(registry: Registry) -> set[str]:
    return {s.meta["run_id"] for s in registry.sets()}


def now(registry: Registry) -> str:
    current = registry.current()
    assert current is not None
    return str(current.meta["run_id"])


@pytest.mark.parametrize(
    ("keep", "left"),
    [(0, {"four"}), (1, {"three", "four"}), (3, {"one", "two", "three", "four"})],
)
def test_prune_keeps_the_current_set_and_so_many_others(
    registry: Registry, capsys: pytest.CaptureFixture[str], keep: int, left: set[str]
) -> None:
    gone = {s.set_id for s in registry.sets() if s.meta["run_id"] not in left}
    assert call(registry, "prune", "--keep", str(keep)) == 0
    assert runs(registry) == left
    assert now(registry) == "four"
    said = capsys.readouterr().out
    assert all(name in said for name in gone)
    assert ("Nothing to delete" in said) == (not gone)
    assert registry.verify() == []


def test_prune_after_a_rollback_keeps_where_the_next_rollback_goes(registry: Registry) -> None:
    registry.rollback()
    assert call(registry, "prune", "--keep", "1") == 0
    assert now(registry) == "three"
    assert runs(registry) == {"two", "three"}
    assert call(registry, "rollback") == 0
    assert now(registry) == "two"


def test_prune_must_be_told_how_many(registry: Registry) -> None:
    assert call(registry, "prune") == 2
    assert call(registry, "prune", "--keep", "-1") == 2
    assert len(registry.sets()) == 4


def test_prune_of_nothing_makes_nothing(tmp_path: Path) -> None:
    empty = Registry(tmp_path / "w" / "registry")
    assert call(empty, "prune", "--keep", "0") == 0
    assert not (tmp_path / "w").exists()


def test_list_marks_the_current_set(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(registry, "list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["run_id"]: r["current"] for r in rows} == {
        **dict.fromkeys(("one", "two", "three"), False),
        "four": True,
    }


def test_verify_ends_with_3_when_a_byte_is_wrong(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(registry, "verify") == 0
    (registry.sets()[0].path / "model").write_text("fuor")
    assert call(registry, "verify") == 3
    assert "model" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["{", "[]", '{"to": "../../elsewhere"}', "\0"])
def test_a_damaged_pointer_stops_deletion_and_can_be_set_again(
    registry: Registry, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    (registry.root / "current.json").write_text(damage)
    assert call(registry, "prune", "--keep", "0") == 3
    assert "current.json: cannot be read" in capsys.readouterr().err
    assert len(registry.sets()) == 4
    assert call(registry, "rollback", "--to", registry.sets()[0].set_id) == 0
    assert call(registry, "prune", "--keep", "0") == 0
    assert len(registry.sets()) == 1
