"""What is published, in what order, and that neither kills nor outages lose or invent anything."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vnquant.errors import RetryableError
from vnquant.host.publisher import Publisher, split
from vnquant.host.stores import Artefact, Receipt, open_store
from vnquant.host.sync import compare, pull, verify
from vnquant.workspace import write_json


def fill(workspace: Path, models: int = 4) -> Path:
    """A run that has got as far as a checkpoint and a few finished models."""
    run = workspace / "runs" / "0123456789ab"
    train = run / "train"
    write_json(run / "spec.json", {"schema_version": 1})
    write_json(run / "manifest.json", {"stages": {}})
    (run / "events.jsonl").write_text('{"event": "a"}\n{"event": "b')
    write_json(run / "ingest" / "quality.json", {"kept": 1})
    write_json(run / "ingest" / "DONE.json", {"snapshot": "x"})
    write_json(run / "features" / "half.json", {})
    (train / "models").mkdir(parents=True)
    (train / "checkpoints").mkdir()
    for i in range(models):
        (train / "models" / f"S{i}.m0.safetensors").write_bytes(bytes([i]) * 5000)
        write_json(train / "models" / f"S{i}.m0.json", {"i": i})
    (train / "models" / "S9.m0.safetensors").write_bytes(b"not finished")
    (train / "models" / ".S9.m0.json.xyz.part").write_bytes(b"aside")
    (train / "checkpoints" / "000001.safetensors").write_bytes(b"c" * 20_000)
    write_json(train / "checkpoints" / "000001.json", {"epoch": 1})
    return run


def publisher(workspace: Path, address: Path | str, said: list[str] | None = None) -> Publisher:
    return Publisher(workspace, str(address), None, (said if said is not None else []).append)


def names(store: Any) -> set[str]:
    return set(store.receipts())


def test_only_what_is_finished_is_published(tmp_path: Path) -> None:
    fill(tmp_path / "w")
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    p.drain()
    found = {n.removeprefix("runs/0123456789ab/") for n in names(p.store)}
    assert {"spec.json", "ingest/quality.json", "ingest/DONE.json"} <= found
    assert {"train/models/S0.m0.safetensors", "train/checkpoints/000001.safetensors"} <= found
    assert not any("S9" in n or "half" in n or n.endswith(".part") for n in found)
    events = [n for n in found if n.startswith("history/events-")]
    assert len(events) == 1
    kept = (tmp_path / "s" / "runs" / "0123456789ab" / events[0]).read_text()
    assert kept == '{"event": "a"}\n', "no half line"


def test_pooled_models_and_their_checkpoints_are_published_too(tmp_path: Path) -> None:
    """Without them another machine would have to train the pool again, and all that follows."""
    pool = fill(tmp_path / "w") / "train" / "pretrain"
    files = {"models/pool.m0", "checkpoints/000001"}
    for name in files:
        write_json(pool / f"{name}.json", {"of": name})
        (pool / f"{name}.safetensors").write_bytes(b"p" * 99)
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    p.drain()
    for name in files:
        for suffix in (".json", ".safetensors"):
            assert f"runs/0123456789ab/train/pretrain/{name}{suffix}" in names(p.store)


def test_a_walk_forward_publishes_models_at_once_and_results_when_done(tmp_path: Path) -> None:
    run = fill(tmp_path / "w")
    walk = run / "walk_forward"
    for fold in (1, 2):
        write_json(walk / "models" / f"fold-{fold}" / "S0.m0.json", {"fold": fold})
        (walk / "models" / f"fold-{fold}" / "S0.m0.safetensors").write_bytes(bytes([fold]) * 99)
    write_json(walk / "plan.json", {})
    write_json(walk / "claims" / "plan.lock", {})
    (walk / "forecasts.parquet").write_bytes(b"rows")
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")

    def there() -> set[str]:
        p.drain()
        prefix = "runs/0123456789ab/walk_forward/"
        return {n.removeprefix(prefix) for n in names(p.store) if n.startswith(prefix)}

    models = {f"models/fold-{f}/S0.m0.{end}" for f in (1, 2) for end in ("json", "safetensors")}
    assert there() == models
    write_json(walk / "DONE.json", {})
    assert there() == models | {"plan.json", "forecasts.parquet", "DONE.json"}


def test_markers_travel_after_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "w")
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    order: list[str] = []
    publish = p.store.publish

    def noted(batch: list[Artefact]) -> list[Receipt]:
        order.extend(a.name for a in batch)
        return publish(batch)

    monkeypatch.setattr(p.store, "publish", noted)
    p.drain()
    assert order[-1].endswith("ingest/DONE.json")


def test_a_second_round_has_nothing_to_do_and_a_new_file_is_all_it_takes(tmp_path: Path) -> None:
    run = fill(tmp_path / "w")
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    assert len(p.drain()) > 5
    again = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    assert again.drain() == []
    write_json(run / "evaluate" / "DONE.json", {})
    assert [r.name for r in again.drain()] == ["runs/0123456789ab/evaluate/DONE.json"]


def test_the_local_list_is_not_believed_without_receipts(tmp_path: Path) -> None:
    """Somebody emptied the remote: everything is published again, nothing is claimed."""
    import shutil

    fill(tmp_path / "w")
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    first = p.drain()
    shutil.rmtree(tmp_path / "s")
    assert {r.name for r in p.drain()} == {r.name for r in first}


def test_a_file_pruned_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fill(tmp_path / "w")
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    real = p.backlog

    def pruned() -> Any:
        found = real()
        (run / "train" / "checkpoints" / "000001.safetensors").unlink(missing_ok=True)
        (run / "train" / "checkpoints" / "000001.json").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(p, "backlog", pruned)
    p.drain()
    assert not any("checkpoints" in n for n in names(p.store))


def test_one_publisher_at_a_time(tmp_path: Path) -> None:
    first = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    second = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    with first.alone(), pytest.raises(RetryableError, match="another publisher"), second.alone():
        pass


def test_batches_are_bounded(tmp_path: Path) -> None:
    found = []
    for i in range(150):
        path = tmp_path / str(i)
        path.write_bytes(b"x")
        found.append(Artefact(str(i), path))
    found.append(Artefact("gone", tmp_path / "gone"))
    assert [len(b) for b in split(found)] == [64, 64, 22]


def test_pull_brings_back_a_workspace_and_keeps_both_of_two_versions(tmp_path: Path) -> None:
    fill(tmp_path / "w")
    publisher(tmp_path / "w", f"directory:{tmp_path / 's'}").drain()
    other = publisher(tmp_path / "w2", f"directory:{tmp_path / 's'}")
    fetched, beside = pull(other)
    assert len(fetched) > 5
    assert beside == []
    edited = tmp_path / "w2" / "runs" / "0123456789ab" / "ingest" / "quality.json"
    edited.write_text("edited here")
    fetched, beside = pull(other)
    assert fetched == []
    assert len(beside) == 1
    assert edited.read_text() == "edited here"
    assert json.loads(beside[0].read_text()) == {"kept": 1}
    assert [r.name for r in compare(other).changed] == ["runs/0123456789ab/ingest/quality.json"]


def test_check_reads_every_byte(tmp_path: Path) -> None:
    fill(tmp_path / "w")
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    p.drain()
    assert verify(p).good
    damaged = tmp_path / "s/runs/0123456789ab/train/models/S0.m0.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    found = verify(p)
    assert found.damaged == ["runs/0123456789ab/train/models/S0.m0.safetensors"]
    assert not found.good


def test_a_watch_outlives_an_outage_and_then_drains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fill(tmp_path / "w")
    write_json(run / "launches" / "x.json", {"launch": "x", "started": "1", "ended": "2"})
    said: list[str] = []
    p = Publisher(tmp_path / "w", f"directory:{tmp_path / 's'}", run.name, said.append)
    real, calls = p.store.publish, []

    def flaky(batch: list[Artefact]) -> list[Receipt]:
        calls.append(len(batch))
        if len(calls) <= 3:
            raise RetryableError("the remote is down")
        return real(batch)

    monkeypatch.setattr(p.store, "publish", flaky)
    monkeypatch.setattr(p._stop, "wait", lambda _: None)
    p.watch(0.01)
    state = json.loads((tmp_path / "w" / "publish" / "status.json").read_text())
    assert state["backlog"] == 0
    assert state["last_error"] is None
    assert sum("not saved yet" in s for s in said) == 1, "told once, not at every try"


@pytest.mark.rclone
def test_kill_9_at_any_moment_loses_nothing_acknowledged(remote: Any, tmp_path: Path) -> None:
    """The publisher is killed at random moments, rclone with it or left behind."""
    run = fill(tmp_path / "w", models=12)
    words = [
        *(sys.executable, "-m", "vnquant", "publish", "--watch", "--interval", "0.1"),
        *("--workspace", str(tmp_path / "w"), "--remote", "t:vn", "--run", run.name),
    ]
    rng = random.Random(5)
    acknowledged: dict[str, Receipt] = {}
    store = open_store("t:vn", cache=tmp_path / "reader")
    for number in range(8):
        (run / "train" / "checkpoints" / f"{number + 2:06d}.safetensors").write_bytes(
            rng.randbytes(3_000_000)
        )
        write_json(run / "train" / "checkpoints" / f"{number + 2:06d}.json", {"n": number})
        child = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(0.2, 2.5))
        if number % 2:
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
        child.wait()
        now = store.receipts()
        assert acknowledged.items() <= now.items(), "a receipt has gone"
        acknowledged = now
    write_json(run / "launches" / "x.json", {"launch": "x", "started": "1", "ended": "2"})
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    receipts = store.receipts()
    store.fetch(receipts.values(), tmp_path / "back")
    local = {p.relative_to(tmp_path / "w").as_posix() for p in run.glob("train/*/[0-9S]*")}
    local -= {n for n in local if "S9" in n}
    assert local <= set(receipts)
    for name in local:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "w" / name).read_bytes()


@pytest.mark.rclone
def test_publishing_goes_on_when_the_remote_comes_back(remote: Any, tmp_path: Path) -> None:
    run = fill(tmp_path / "w")
    remote.server.kill()
    words = [
        *(sys.executable, "-m", "vnquant", "publish", "--watch", "--interval", "0.2"),
        *("--workspace", str(tmp_path / "w"), "--remote", "t:vn", "--run", run.name),
    ]
    write_json(run / "launches" / "x.json", {"launch": "x", "started": "1", "ended": "2"})
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    status = tmp_path / "w" / "publish" / "status.json"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (
        status.exists() and json.loads(status.read_text())["last_error"]
    ):
        time.sleep(0.1)
    assert json.loads(status.read_text())["backlog"] > 0
    remote.server.start()
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert json.loads(status.read_text())["backlog"] == 0


def test_watching_ends_when_no_run_is_worked_on(tmp_path: Path) -> None:
    """A run at work is known by its lock, which its process holds however quiet it is."""
    run = fill(tmp_path / "w")
    os.utime(run / "events.jsonl", (1, 1))
    p = publisher(tmp_path / "w", f"directory:{tmp_path / 's'}")
    holder = (run / "lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    watching = threading.Thread(target=p.watch, args=(0.05, 0.5))
    watching.start()
    watching.join(1.5)
    assert watching.is_alive()
    holder.close()
    watching.join(20)
    assert not watching.is_alive()
    assert "runs/0123456789ab/ingest/DONE.json" in names(p.store)
