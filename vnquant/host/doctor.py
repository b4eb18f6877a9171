"""Look over this machine: what vnquant could use here, and what to do about what is missing."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import psutil

from vnquant.accelerators.topology import read
from vnquant.errors import VnquantError
from vnquant.host import images, process, publishing
from vnquant.host.findings import Finding
from vnquant.host.image_engine import client
from vnquant.host.launch import LEAST_DISK, LEAST_MEMORY
from vnquant.host.targets.container import ROWS, gpu_finding

ENGINE, CLIENT, BUILDX, COMPOSE, RCLONE = (25, 0), (25, 0), (0, 13), (2, 20), (1, 60)


def examine(workspace: Path, remote: str | None = None) -> list[Finding]:
    """Every finding, in the order in which one would mend things.

    What is in the way of every run is an error; what only some target needs is a warning.
    """
    cores = f"{read().describe()}, {os.cpu_count()} logical CPUs"
    found = [Finding("ok", f"Python {sys.version.split()[0]}, {cores}")]
    memory = psutil.virtual_memory()
    what = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory are free"
    found.append(_enough(memory.available, LEAST_MEMORY, 4e9, what, "close other programs"))
    found += _folder(workspace)
    found += _engine()
    for name, words, least in (
        ("docker", ["docker", "version", "--format", "{{.Client.Version}}"], CLIENT),
        ("docker buildx", ["docker", "buildx", "version"], BUILDX),
        ("docker compose", ["docker", "compose", "version", "--short"], COMPOSE),
        ("rclone", ["rclone", "version"], RCLONE),
    ):
        found.append(_program(name, words, least))
    if remote:
        found += publishing.preflight(workspace, remote)
    return found


def _enough(free: float, least: float, good: float, what: str, fix: str) -> Finding:
    """An error below what every run needs, a warning below what most runs need."""
    if free < least:
        return Finding("error", what, fix)
    return Finding("ok", what) if free >= good else Finding("warning", what, fix)


def _folder(workspace: Path) -> list[Finding]:
    """Whether the workspace, or the folder that it would be made in, can be written."""
    folder = next(p for p in (workspace, *workspace.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    what = f"{free / 1e9:.1f} GB are free for {workspace}"
    fix = "free 10 GB, or choose another --workspace"
    found = [_enough(free, LEAST_DISK, 10e9, what, fix)]
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        what = f"{folder} cannot be written ({error.strerror})"
        found.append(Finding("error", what, "choose another --workspace"))
    return found


def _judged(good: bool, what: str, fix: str) -> Finding:
    return Finding("ok", what) if good else Finding("warning", what, fix)


def _engine() -> list[Finding]:
    try:
        engine = client()
        version = str(engine.version()["Version"])
    except VnquantError as error:
        return [Finding("warning", error.what, f"{error.fix}; only --target local works without")]
    found = [
        _judged(_numbers(version) >= ENGINE, f"container engine {version}", "install 25 or newer")
    ]
    for row in ROWS.values():
        try:
            why = images.matches_code(images.inspect(row.image))
        except VnquantError as error:
            found.append(Finding("warning", f"{error.where}: {error.what}", error.fix))
            continue
        fix = f"build it again: vnquant image build {row.name}"
        found.append(_judged(why is None, why or f"{row.image} is built from this code", fix))
    gpu = gpu_finding(engine.info())
    found.append(gpu if gpu.ok else Finding("warning", gpu.what, gpu.fix))
    return found


def _program(name: str, words: list[str], least: tuple[int, int]) -> Finding:
    wanted = ".".join(map(str, least))
    try:
        said = process.run(words, timeout=20).out
    except VnquantError:
        return Finding("warning", f"{name} is not there", f"install {name} {wanted} or newer")
    version = re.search(r"v?(\d+\.\d+[.\d]*)", said)
    shown = version.group(1) if version else "unknown"
    return _judged(_numbers(shown) >= least, f"{name} {shown}", f"install {wanted} or newer")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])
