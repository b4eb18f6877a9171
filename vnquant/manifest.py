"""Provenance: what made a run's results. One JSON file, updated after every stage."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import vnquant
from vnquant.spec import RunSpec
from vnquant.workspace import Run, read_json, write_json

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "TA-Lib", "safetensors", "scikit-learn")


def code_version() -> dict[str, Any]:
    """Package version and commit; ``dirty`` when the checkout differs from that commit.

    The commit comes from VNQUANT_COMMIT (images set it) or from git, if the package is imported
    from a checkout; otherwise it is None.
    """
    version: dict[str, Any] = {"version": vnquant.__version__, "commit": None, "dirty": None}
    if commit := os.environ.get("VNQUANT_COMMIT"):
        return {**version, "commit": commit, "dirty": False}
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():

        def git(*args: str) -> str:
            done = subprocess.run(
                ["git", "-C", str(root), *args],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            return done.stdout.strip()

        try:
            version["commit"] = git("rev-parse", "HEAD")
            version["dirty"] = bool(git("status", "--porcelain", "--untracked-files=no"))
        except (OSError, subprocess.SubprocessError):
            pass  # no git, or an empty repository: provenance says so with None
    return version


def source_digest() -> str:
    """sha256 of every module of the package: of a changed checkout too, which no commit names."""
    root, digest = Path(__file__).resolve().parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Versions of the libraries that can change a result, without importing them."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def base(spec: RunSpec) -> dict[str, Any]:
    """What is known before any stage has run."""
    return {
        "run_id": spec.run_id,
        "spec_digest": spec.digest,
        "schema_version": spec.schema_version,
        "data_snapshot": spec.data.snapshot,
        "seed": spec.training.seed,
        "created": _now(),
        "stages": {},
    }


def record(run: Run, stage: str, **fields: Any) -> dict[str, Any]:
    """Add one stage's facts (device, threads, seconds, peak memory, ...) and save the manifest."""
    manifest = read_json(run.path / "manifest.json") or base(run.spec)
    entry = {
        "finished": _now(),
        "code": code_version(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "image_digest": os.environ.get("VNQUANT_IMAGE_DIGEST"),
        **fields,
    }
    manifest["stages"][stage] = entry
    if stage == "ingest" and fields.get("snapshot"):
        manifest["data_snapshot"] = fields["snapshot"]
    write_json(run.path / "manifest.json", manifest)
    return manifest
