"""Provenance that names the very code: also code that no commit names."""

from __future__ import annotations

from pathlib import Path

import pytest

from vnquant import manifest


def test_the_source_digest_is_of_every_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "manifest.py"))
    (tmp_path / "part").mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "part" / "b.py").write_text("y = 2\n")
    digest = manifest.source_digest()
    (tmp_path / "part" / "notes.txt").write_text("no module")
    assert manifest.source_digest() == digest
    (tmp_path / "part" / "b.py").write_text("y = 3\n")
    changed = manifest.source_digest()
    (tmp_path / "part" / "b.py").rename(tmp_path / "part" / "c.py")
    assert len({digest, changed, manifest.source_digest()}) == 3
