"""A real rclone against a remote that fails in every way it can: nothing false is claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vnquant.errors import RetryableError
from vnquant.host.findings import refuse_errors
from vnquant.host.stores import Artefact, open_store

pytestmark = pytest.mark.rclone


def artefacts(tmp_path: Path, count: int = 3) -> list[Artefact]:
    found = []
    for i in range(count):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(bytes([65 + i]) * 50_000)
        found.append(Artefact(f"runs/a/{i}.bin", path))
    return found


def honest(remote: Any, tmp_path: Path) -> int:
    """Every receipt's bytes are really there; returns how many receipts there are."""
    store = open_store("t:vn", cache=tmp_path / "another")
    receipts = store.receipts()
    store.fetch(receipts.values(), tmp_path / "back")
    return len(receipts)


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "drop"])
@pytest.mark.parametrize("method", ["PUT", "GET", "PROPFIND", "MOVE", "MKCOL"])
def test_a_passing_fault_is_ridden_out(
    remote: Any, tmp_path: Path, method: str, fault: str
) -> None:
    remote.faults.plan = [(method, fault)]
    store = open_store("t:vn", cache=tmp_path / "cache")
    try:
        saved = store.publish(artefacts(tmp_path))
    except RetryableError:
        saved = store.publish(artefacts(tmp_path))
    assert remote.faults.seen == [f"{method} {fault}"]
    assert len(saved) == honest(remote, tmp_path) == 3


def test_truncated_uploads_are_never_called_saved(remote: Any, tmp_path: Path) -> None:
    store = open_store("t:vn", cache=tmp_path / "cache")
    remote.faults.plan = [("PUT", "truncate")] * 40
    with pytest.raises(RetryableError):
        store.publish(artefacts(tmp_path))
    assert honest(remote, tmp_path) == 0
    remote.faults.plan = []
    assert len(store.publish(artefacts(tmp_path))) == honest(remote, tmp_path) == 3


def test_a_full_remote(remote: Any, tmp_path: Path) -> None:
    store = open_store("t:vn", cache=tmp_path / "cache")
    remote.faults.plan = [("PUT", "507")] * 60
    with pytest.raises(RetryableError, match="507"):
        store.publish(artefacts(tmp_path))
    assert honest(remote, tmp_path) == 0


def test_a_remote_that_is_down_and_comes_back(remote: Any, tmp_path: Path) -> None:
    store = open_store("t:vn", cache=tmp_path / "cache")
    remote.server.kill()
    with pytest.raises(RetryableError):
        store.publish(artefacts(tmp_path, 1))
    assert not all(f.ok for f in store.preflight())
    remote.server.start()
    assert len(store.publish(artefacts(tmp_path))) == honest(remote, tmp_path) == 3


def test_preflight_names_a_remote_that_is_not_configured(remote: Any, tmp_path: Path) -> None:
    (finding,) = open_store("nowhere:x", cache=tmp_path).preflight()
    assert "no remote nowhere" in finding.what
    assert "t:" in finding.fix


def test_google_drive_needs_a_client_id_of_its_own(remote: Any, tmp_path: Path) -> None:
    remote.config.write_text(
        remote.config.read_text()
        + '[gdrive]\ntype = drive\nscope = drive\ntoken = {"access_token":"geheim"}\n'
    )
    from vnquant.host.stores.rclone import drive_finding

    finding = drive_finding("gdrive")
    assert finding is not None
    assert not finding.ok
    assert "client id" in finding.what
    assert "geheim" not in str(finding)
    with pytest.raises(Exception, match="client id"):
        refuse_errors([finding])
    assert drive_finding("t") is None
