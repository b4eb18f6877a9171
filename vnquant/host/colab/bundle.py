"""One tar with all the machine needs: the wheel of this code, its lock, spec, prices, job."""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from vnquant import colab_agent as agent
from vnquant.host.image_context import Commit, checkout, commit, lay_out
from vnquant.host.process import run
from vnquant.host.targets import LaunchSpec
from vnquant.workspace import write_bytes


def build(scratch: Path) -> tuple[Path, Path, Commit]:
    """The wheel of this checkout, its lock file, and the code that they are of.

    Raises:
        UsageError: this is no checkout, so there is nothing to make a wheel of.
        RetryableError: the wheel could not be built.
    """
    root = checkout()
    source = commit(root)
    tree, wheels = scratch / "tree", scratch / "wheels"
    tree.mkdir()
    lay_out(root, source, tree)
    words = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(wheels)]
    run([sys.executable, "-m", "pip", "wheel", *words, str(tree)], timeout=300)
    (wheel,) = wheels.glob("*.whl")
    return wheel, tree / "requirements" / "runtime.txt", source


def write_wheel(folder: Path) -> str:
    """Put the wheel and ``runtime.txt`` into a folder, in place of an older one; returns its name.

    Raises:
        UsageError, RetryableError: as `build`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wheel, lock, _ = build(Path(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("vnquant-*.whl"):
            old.unlink()
        write_bytes(folder / lock.name, lock.read_bytes())
        write_bytes(folder / wheel.name, wheel.read_bytes())
        return wheel.name


def pack(launch: LaunchSpec, job: dict[str, Any], into: Path) -> dict[str, Any]:
    """Write ``into`` (a tar); returns which code it holds, for the record.

    Raises:
        UsageError, RetryableError: as `build`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wheel, lock, source = build(Path(scratch))
        job = {**job, "prices": f"prices/{launch.prices.name}" if launch.prices else None}
        settled = Path(scratch) / "job.json"
        settled.write_text(json.dumps(job), encoding="utf-8")
        with tarfile.open(into, "w") as tar:
            tar.add(wheel, wheel.name)
            tar.add(lock, "runtime.txt")
            tar.add(launch.run / "spec.json", "spec.json")
            tar.add(Path(agent.__file__), "agent.py")
            tar.add(settled, "job.json")
            if launch.prices:
                tar.add(launch.prices, job["prices"])
    return {"commit": source.sha, "dirty": source.dirty}
