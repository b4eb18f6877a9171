"""One tar with all the machine needs: the wheel of this code, its lock, spec, prices, job."""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from vnquant.host.colab import agent
from vnquant.host.image_context import checkout, commit, lay_out
from vnquant.host.process import run
from vnquant.host.targets import LaunchSpec


def pack(launch: LaunchSpec, job: dict[str, Any], into: Path) -> dict[str, Any]:
    """Write ``into`` (a tar); returns which code it holds, for the record.

    Raises:
        UsageError: this is no checkout, so there is nothing to make a wheel of.
        RetryableError: the wheel could not be built.
    """
    root = checkout()
    source = commit(root)
    with tempfile.TemporaryDirectory() as scratch:
        tree, wheels = Path(scratch) / "tree", Path(scratch) / "wheels"
        tree.mkdir()
        lay_out(root, source, tree)
        words = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(wheels)]
        run([sys.executable, "-m", "pip", "wheel", *words, str(tree)], timeout=300)
        (wheel,) = wheels.glob("*.whl")
        job = {**job, "prices": f"prices/{launch.prices.name}" if launch.prices else None}
        settled = Path(scratch) / "job.json"
        settled.write_text(json.dumps(job), encoding="utf-8")
        with tarfile.open(into, "w") as tar:
            tar.add(wheel, wheel.name)
            tar.add(tree / "requirements" / "runtime.txt", "runtime.txt")
            tar.add(launch.run / "spec.json", "spec.json")
            tar.add(Path(agent.__file__), "agent.py")
            tar.add(settled, "job.json")
            if launch.prices:
                tar.add(launch.prices, job["prices"])
    return {"commit": source.sha, "dirty": source.dirty}
