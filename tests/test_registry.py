"""The registry against kills, full disks, damage and a second writer."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vnquant.errors import DataError, RetryableError, UsageError
from vnquant.registry import Registry

PASSED = {"passed": True, "reason": "clears the bar"}
REFUSED = {"passed": False, "reason": "accuracy 0.49 is below 0.52"}
REPO = Path(__file__).resolve().parents[1]


def source(folder: Path, text: str, size: int = 0) -> Path:
    (folder / "members").mkdir(parents=True, exist_ok=True)
    (folder / "FPT.safetensors").write_bytes(text.encode() + b"\0" * size)
    (folder / "members" / "note.json").write_text(json.dumps({"text": text}))
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def promote(registry: Registry, tmp_path: Path, text: str) -> str:
    return registry.promote(source(tmp_path / text, text), {"run_id": text}, PASSED)


def content(registry: Registry) -> dict[str, bytes]:
    current = registry.current()
    assert current is not None
    root = current.path
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_an_empty_registry_has_nothing(registry: Registry) -> None:
    assert registry.current() is None
    assert registry.sets() == []
    assert registry.verify() == []
    with pytest.raises(UsageError, match="no earlier set"):
        registry.rollback()


def test_promote_copies_the_bytes_and_records_the_facts(registry: Registry, tmp_path: Path) -> None:
    folder = source(tmp_path / "a", "first")
    meta = {"run_id": "abc", "spec_digest": "d" * 64, "symbols": ["FPT"]}
    set_id = registry.promote(folder, meta, PASSED)
    current = registry.current()
    assert current is not None
    assert current.set_id == set_id
    assert (current.path / "FPT.safetensors").read_bytes() == b"first"
    assert current.meta["run_id"] == "abc"
    assert current.meta["spec_digest"] == "d" * 64
    assert current.meta["symbols"] == ["FPT"]
    assert current.meta["gate"] == PASSED
    assert current.meta["forced"] is False
    assert current.meta["files"]["FPT.safetensors"]["bytes"] == 5
    assert set(current.meta["files"]) == {"FPT.safetensors", "members/note.json"}
    assert set_id.endswith("-" + current.meta["content"][:8])
    assert registry.verify() == []
    assert list(registry._incoming.iterdir()) == []


def test_a_refused_set_needs_force_and_force_is_recorded(
    registry: Registry, tmp_path: Path
) -> None:
    folder = source(tmp_path / "a", "weak")
    with pytest.raises(UsageError, match=r"accuracy 0\.49 is below 0\.52"):
        registry.promote(folder, {}, REFUSED)
    assert registry.current() is None
    registry.promote(folder, {}, REFUSED, force=True, force_reason="a demonstration")
    current = registry.current()
    assert current is not None
    assert (current.meta["forced"], current.meta["force_reason"]) == (True, "a demonstration")
    assert registry.journal()[-1]["forced"] is True
    assert registry.journal()[-1]["reason"] == "a demonstration"


def test_force_on_a_set_that_passed_is_not_called_forced(
    registry: Registry, tmp_path: Path
) -> None:
    registry.promote(source(tmp_path / "a", "good"), {}, PASSED, force=True, force_reason="x")
    assert registry.journal()[-1]["forced"] is False


def test_the_same_content_is_kept_once(registry: Registry, tmp_path: Path) -> None:
    first = promote(registry, tmp_path, "one")
    assert registry.promote(source(tmp_path / "copy", "one"), {}, PASSED) == first
    assert len(registry.sets()) == 1
    promote(registry, tmp_path, "two")
    assert registry.promote(source(tmp_path / "copy", "one"), {}, PASSED) == first
    assert len(registry.sets()) == 2
    current = registry.current()
    assert current is not None
    assert current.set_id == first


def test_a_damaged_copy_is_not_reused(registry: Registry, tmp_path: Path) -> None:
    first = promote(registry, tmp_path, "one")
    flip_byte(registry._sets / first / "FPT.safetensors")
    second = promote(registry, tmp_path, "one")
    assert second != first
    assert registry.verify(second) == []


def test_rollback_restores_byte_for_byte_and_walks_back(registry: Registry, tmp_path: Path) -> None:
    seen, ids = [], []
    for text in ("one", "two", "three"):
        ids.append(promote(registry, tmp_path, text))
        seen.append(content(registry))
    # Sets of one second have no stated order.
    assert sorted(s.set_id for s in registry.sets()) == sorted(ids)
    assert [s.set_id for s in registry.sets() if s.current] == [ids[2]]
    assert registry.rollback() == ids[1]
    assert content(registry) == seen[1]
    assert registry.rollback() == ids[0]
    assert content(registry) == seen[0]
    with pytest.raises(UsageError, match="no earlier set"):
        registry.rollback()
    assert registry.rollback(ids[2]) == ids[2]
    assert content(registry) == seen[2]
    assert [r["action"] for r in registry.journal()] == ["promote"] * 3 + ["rollback"] * 3
    assert registry.journal()[-1]["from"] == ids[0]


def test_rollback_follows_what_was_current_and_never_goes_round(
    registry: Registry, tmp_path: Path
) -> None:
    ids = {text: promote(registry, tmp_path, text) for text in "ABC"}
    assert promote(registry, tmp_path, "A") == ids["A"]
    assert [registry.rollback() for _ in range(3)] == [ids["C"], ids["B"], ids["A"]]
    with pytest.raises(UsageError, match="no earlier set"):
        registry.rollback()
    # Forward again by name: the set before C is now A, whatever C displaced when it was promoted.
    registry.rollback(ids["C"])
    assert registry.rollback() == ids["A"]


def test_prune_keeps_the_current_set_and_where_rollback_would_go(
    registry: Registry, tmp_path: Path
) -> None:
    assert registry.prune(0) == []
    ids = [promote(registry, tmp_path, text) for text in "ABCDE"]
    registry.rollback(ids[2])
    assert registry.prune() == []
    with pytest.raises(UsageError, match="below 0"):
        registry.prune(-1)
    # C is current; rollback would go to B, then A; of the others E is newer than D.
    assert registry.prune(3) == [ids[3]]
    assert registry.prune(1) == [ids[0], ids[4]]
    assert sorted(s.set_id for s in registry.sets()) == sorted(ids[1:3])
    assert registry.verify() == []
    assert list(registry._incoming.iterdir()) == []
    assert registry.rollback() == ids[1]
    assert registry.prune(0) == [ids[2]]
    with pytest.raises(UsageError, match="no earlier set"):
        registry.rollback()
    assert registry.verify() == []


def test_rollback_to_nowhere_is_a_usage_error(registry: Registry, tmp_path: Path) -> None:
    promote(registry, tmp_path, "one")
    for name in ("20260101T000000-00000000", "../../etc"):
        with pytest.raises(UsageError, match="not among the deployed sets"):
            registry.rollback(name)
    for name in ("20260101T000000-00000000", "../..", "..", ".", ""):
        assert registry.verify(name) == [f"{name}: no such set"]


def test_rollback_refuses_a_damaged_set(registry: Registry, tmp_path: Path) -> None:
    first = promote(registry, tmp_path, "one")
    second = promote(registry, tmp_path, "two")
    flip_byte(registry._sets / first / "FPT.safetensors")
    with pytest.raises(UsageError, match="damaged"):
        registry.rollback()
    current = registry.current()
    assert current is not None
    assert current.set_id == second


def flip_byte(path: Path, at: int = 0) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_verify_names_each_kind_of_damage(registry: Registry, tmp_path: Path) -> None:
    root = registry._sets / promote(registry, tmp_path, "one")
    weights, note = root / "FPT.safetensors", root / "members" / "note.json"
    flip_byte(weights)
    assert [p.split(": ")[1] for p in registry.verify()] == [
        "FPT.safetensors does not match its checksum"
    ]
    flip_byte(weights)
    assert registry.verify() == []
    weights.write_bytes(weights.read_bytes() + b"x")
    note.unlink()
    (root / "strange").write_bytes(b"")
    found = "\n".join(registry.verify())
    assert "has 4 bytes instead of 3" in found
    assert "members/note.json cannot be read" in found
    assert "strange does not belong to the set" in found
    for text in (b"\xff\xfe", b"[]", b'{"files": 3}', b""):
        (root / "set.json").write_bytes(text)
        assert "set.json is missing or unreadable" in registry.verify()[0]
    (root / "set.json").unlink()
    assert "set.json is missing or unreadable" in registry.verify()[0]


def test_verify_does_not_raise_on_damaged_file_entries(registry: Registry, tmp_path: Path) -> None:
    root = registry._sets / promote(registry, tmp_path, "one")
    (root / "set.json").write_text('{"files": {"FPT.safetensors": 1}}')
    assert registry.verify() != []


def test_a_journal_with_foreign_lines_is_still_read(registry: Registry, tmp_path: Path) -> None:
    ids = [promote(registry, tmp_path, text) for text in ("one", "two")]
    with registry._journal.open("a") as handle:
        handle.write("[" * 100_000 + '\n3\n{"to": 1}\n')
    assert [r["to"] for r in registry.journal()] == ids
    assert registry.rollback() == ids[0]
    assert [r["to"] for r in registry.journal()] == [*ids, ids[0]]


def test_what_cannot_be_json_and_what_cannot_be_read_is_refused(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source(tmp_path / "a", "a")
    for value in (float("nan"), object()):
        with pytest.raises(UsageError, match="no JSON"):
            registry.promote(folder, {"value": value}, PASSED)
    assert registry.current() is None

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "FPT.safetensors")

    monkeypatch.setattr("vnquant.registry_files._copy_file", forbidden)
    with pytest.raises(UsageError, match="Permission denied"):
        registry.promote(folder, {}, PASSED)
    assert list(registry._incoming.iterdir()) == []


def test_verify_follows_no_link_and_waits_for_no_pipe(registry: Registry, tmp_path: Path) -> None:
    root = registry._sets / promote(registry, tmp_path, "one")
    (root / "link").symlink_to("/dev/null")
    weights = root / "FPT.safetensors"
    outside = tmp_path / "outside"
    outside.write_bytes(weights.read_bytes())
    for replace in (lambda: os.mkfifo(weights), lambda: weights.symlink_to(outside)):
        weights.unlink()
        replace()
        found = "\n".join(registry.verify())
        assert "link does not belong to the set" in found
        assert "FPT.safetensors is not a plain file" in found


def test_a_set_under_another_name_is_damage(registry: Registry, tmp_path: Path) -> None:
    first, second = (promote(registry, tmp_path, text) for text in ("one", "two"))
    folder = registry._sets / first
    folder.rename(folder.with_name(second[:-8] + first[-8:].replace(first[-1], "f") + "-7"))
    assert "is that of another set" in "".join(registry.verify())


def test_json_nested_without_end_is_only_damage(registry: Registry, tmp_path: Path) -> None:
    first, second = (promote(registry, tmp_path, text) for text in ("one", "two"))
    (registry._sets / first / "set.json").write_text("[" * 100_000)
    assert [p.split(": ")[0] for p in registry.verify()] == [first]
    assert {s.set_id for s in registry.sets()} == {first, second}


def test_every_byte_of_set_json_is_covered(registry: Registry, tmp_path: Path) -> None:
    root = registry._sets / promote(registry, tmp_path, "one")
    for at in range((root / "set.json").stat().st_size):
        flip_byte(root / "set.json", at)
        assert registry.verify() != [], at
        flip_byte(root / "set.json", at)
    assert registry.verify() == []


def test_a_damaged_pointer_is_reported_and_can_be_repaired(
    registry: Registry, tmp_path: Path
) -> None:
    first = promote(registry, tmp_path, "one")
    promote(registry, tmp_path, "two")
    for text in ("{", '{"to": "../../etc"}', '{"to": 3}'):
        registry._pointer.write_text(text)
        assert registry.verify() == ["current.json: unreadable"]
        with pytest.raises(DataError, match="cannot be read"):
            registry.current()
    assert registry.rollback(first) == first
    assert registry.verify() == []


def test_a_source_that_cannot_be_a_set_is_refused(registry: Registry, tmp_path: Path) -> None:
    linked = source(tmp_path / "linked", "a")
    (linked / "members" / "link").symlink_to(linked / "FPT.safetensors")
    linked_folder = source(tmp_path / "linked_folder", "a")
    (linked_folder / "more").symlink_to(tmp_path)
    piped = source(tmp_path / "piped", "a")
    os.mkfifo(piped / "pipe")
    reserved = source(tmp_path / "reserved", "a")
    (reserved / "set.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name, why in {
        "linked": "not a plain file",
        "linked_folder": "not a plain file",
        "piped": "not a plain file",
        "reserved": "reserved name",
        "empty": "no files",
        "absent": "not a folder",
    }.items():
        with pytest.raises(UsageError, match=why):
            registry.promote(tmp_path / name, {}, PASSED)
    assert registry.current() is None
    assert registry.sets() == []


def test_a_held_lock_is_worth_retrying(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = promote(registry, tmp_path, "one")
    monkeypatch.setattr("vnquant.registry.LOCK_SECONDS", 0.1)
    with (registry.root / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(RetryableError, match="another process"):
            promote(registry, tmp_path, "two")
    current = registry.current()
    assert current is not None
    assert current.set_id == first


def test_a_torn_journal_and_a_lost_record_are_caught_up(registry: Registry, tmp_path: Path) -> None:
    ids = [promote(registry, tmp_path, text) for text in ("one", "two")]
    # As left by a kill in the middle of the second append.
    whole = registry._journal.read_bytes()
    registry._journal.write_bytes(whole[: whole.index(b"\n") + 20])
    assert [r["to"] for r in registry.journal()] == ids
    ids.append(promote(registry, tmp_path, "three"))
    assert [r["to"] for r in registry.journal()] == ids
    assert registry.rollback() == ids[1]
    assert registry.rollback() == ids[0]


CHILD = """
import sys
from pathlib import Path
from vnquant.registry import Registry

registry, work = Registry(Path(sys.argv[1])), Path(sys.argv[2])
work.mkdir(exist_ok=True)
print("ready", flush=True)
for n in range(int(sys.argv[3]), int(sys.argv[3]) + int(sys.argv[4])):
    for part in range(4):
        (work / f"part{part}").write_bytes(f"{n} ".encode() * 20_000)
    registry.promote(work, {"n": n}, {"passed": True, "reason": "test"})
print("done", flush=True)
"""


def start(root: Path, work: Path, first: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(work), str(first), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPO,
    )


def assert_complete(registry: Registry) -> int | None:
    """What any reader may rely on: the current set is whole, all its parts of one promotion."""
    current = registry.current()
    if current is None:
        return None
    texts = {(current.path / f"part{i}").read_bytes() for i in range(4)}
    assert len(texts) == 1
    text = texts.pop()
    n = int(current.meta["n"])
    assert text == f"{n} ".encode() * 20_000
    return n


def test_a_kill_at_any_point_leaves_a_complete_set(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    pick = random.Random(7)
    newest, kills, moved = -1, 0, 0
    for attempt in range(31):
        child = start(registry.root, tmp_path / "work", 10_000 * attempt, 10_000)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        limit = time.monotonic() + 20
        try:
            # Every other child is let through its first promotion, however slow the machine.
            while attempt % 2 and time.monotonic() < limit:
                seen = assert_complete(registry)
                if seen is not None and seen > newest:
                    break
            until = time.monotonic() + pick.uniform(0.0, 0.12)
            while time.monotonic() < until:
                seen = assert_complete(registry)
                assert seen is None or seen >= newest
        finally:
            child.send_signal(signal.SIGKILL)
            child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        kills += 1
        seen = assert_complete(registry)
        if seen is not None:
            moved += seen > newest
            newest = seen
            current = registry.current()
            assert current is not None
            assert registry.verify(current.set_id) == []
    assert kills >= 30
    assert moved >= 10
    assert registry.verify() == []
    before = registry.current()
    assert before is not None
    last = registry.promote(source(tmp_path / "last", "last"), {}, PASSED)
    assert list(registry._incoming.iterdir()) == []
    trail = [r["to"] for r in registry.journal()]
    assert trail[-1] == last
    assert registry.rollback() == before.set_id


FULL = """
import resource, sys
from pathlib import Path
from vnquant.errors import RetryableError
from vnquant.registry import Registry

limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    Registry(Path(sys.argv[1])).promote(Path(sys.argv[2]), {}, {"passed": True, "reason": ""})
except RetryableError as error:
    print(error)
    raise SystemExit(5)
"""


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "limit",
    [
        20_000,
        300,
        100,
    ],
)
def test_a_full_disk_changes_nothing(registry: Registry, tmp_path: Path, limit: int) -> None:
    promote(registry, tmp_path, "one")
    before = snapshot(registry.root)
    # 20 000 stops the weights, 300 stops set.json, 100 stops the pointer of an existing set.
    promote(registry, tmp_path, "two")
    registry.rollback()
    before = snapshot(registry.root)
    folder = tmp_path / "two" if limit == 100 else source(tmp_path / "new", "new", 100 * limit)
    if limit == 300:
        folder = source(tmp_path / "small", "small")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(registry.root), str(folder), str(limit)],
        capture_output=True,
        text=True,
        cwd=REPO,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "no space left" in done.stdout
    assert snapshot(registry.root) == before
    assert registry.verify() == []


def test_a_disk_full_at_the_pointer_takes_the_new_set_out_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(registry, tmp_path, "one")
    before = snapshot(registry.root)

    def full(*_: object) -> None:
        raise RetryableError("no space left on the device")

    monkeypatch.setattr("vnquant.registry.write_json", full)
    with pytest.raises(RetryableError):
        promote(registry, tmp_path, "two")
    assert snapshot(registry.root) == before
    assert len(registry.sets()) == 1


def test_a_journal_that_cannot_grow_is_caught_up(registry: Registry, tmp_path: Path) -> None:
    for n in range(20):
        promote(registry, tmp_path, f"set{n}")
    limit = registry._journal.stat().st_size + 10
    assert limit > 2_000
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(registry.root), str(tmp_path / "set3"), str(limit)],
        capture_output=True,
        text=True,
        cwd=REPO,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert registry._journal.stat().st_size == limit - 10
    assert len(registry.journal()) == 21
    registry.rollback()
    assert len(registry._journal.read_text().splitlines()) == 22
    current = registry.current()
    assert current is not None
    assert current.meta["run_id"] == "set19"


def test_two_promoters_take_turns(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    children = [start(registry.root, tmp_path / f"work{i}", 1000 * i, 8) for i in range(2)]
    while any(child.poll() is None for child in children):
        assert_complete(registry)
    for child in children:
        out, _ = child.communicate()
        assert child.returncode == 0
        assert out.endswith("done\n")
    assert len(registry.sets()) == 16
    assert len(registry.journal()) == 16
    assert registry.verify() == []
    # Each record starts where the one before it ended: the writers never interleaved.
    records = registry.journal()
    assert [r["from"] for r in records[1:]] == [r["to"] for r in records[:-1]]


def test_a_record_that_only_the_pointer_has_is_never_overwritten(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [promote(registry, tmp_path, text) for text in ("one", "two")]
    # As left by a kill right after the pointer, followed by a disk too full for the journal.
    lines = registry._journal.read_bytes().splitlines(keepends=True)
    registry._journal.write_bytes(lines[0])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vnquant.registry._line", full)
        with pytest.raises(RetryableError, match="no space left"):
            registry.rollback()
    assert [r["to"] for r in registry.journal()] == ids
    assert registry.rollback() == ids[0]
    assert [r["to"] for r in registry.journal()] == [*ids, ids[0]]
