"""Regenerate the hash-pinned requirement files from pyproject.toml. See requirements/README.md.

Run through ``just lock``. Needs uv (pinned in requirements/uv.txt) and a package index, which uv
finds through its own configuration; no address is written into any file.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
TORCH = "2.13.0"  # the release whose CPU and CUDA wheels this project is tested with
CUDA_PARTS = ("nvidia-", "cuda-", "triton")  # what only a CUDA wheel of torch depends on
LOCKED = {
    "dev": (("dev",), "Tests, linters, types."),
    # The controller collects prices too; `prices` alone is for a machine that does nothing else.
    "host": (("host", "prices"), "The controller's extra, and that of collecting prices."),
    "study": (("study", "ray"), "Rivals, search and cluster of the studies."),
    "bench": (("bench",), "Peers of the benchmarks."),
}
"""The extras in each file of requirements, and what it is for."""
TOOLS = {"just": "rust-just", "uv": "uv", "build": "setuptools>=77.0.3"}

Pins = dict[str, str]  # distribution name -> its block of lines


def compile_pins(wanted: list[str], *, fixed: Pins | None = None) -> Pins:
    """Resolve ``wanted`` for every supported Python and platform; agree with ``fixed``."""
    return resolve(
        wanted, fixed, "--universal", "--python-version", "3.11", "--fork-strategy", "fewest"
    )


def resolve(wanted: list[str], fixed: Pins | None, *words: str) -> Pins:
    """Resolve ``wanted`` with uv; ``words`` say for which Pythons and platforms."""
    with tempfile.TemporaryDirectory() as folder:
        given, constraints = Path(folder, "in.txt"), Path(folder, "constraints.txt")
        given.write_text("\n".join([*wanted, ""]))
        constraints.write_text("".join((fixed or {}).values()))
        command = [
            *("uv", "pip", "compile", str(given), *words),
            *("--generate-hashes", "--no-emit-index-url"),
            *("--no-header", "--no-annotate", "--quiet", "--constraints", str(constraints)),
        ]
        # Files on this disk must not decide what others install; torch's own are added below.
        clean = {k: v for k, v in os.environ.items() if k != "UV_FIND_LINKS"}
        text = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=clean)
    return split_blocks(text.stdout)


def split_blocks(text: str) -> Pins:
    """Cut a requirement file into one block per distribution."""
    pins: Pins = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if name := re.match(r"[A-Za-z0-9._-]+", block):
            pins[re.sub(r"[-_.]+", "-", name.group()).lower()] = block.rstrip() + "\n"
    return pins


def cpu_wheel_pin(path: Path) -> Pins:
    """Pin the CPU wheel: from the folders that PIP_FIND_LINKS names, else as it was known before.

    An index that is not asked cannot tell its hash, so only wheels seen on disk are pinned; the
    marker names the one platform they are for.
    """
    version = f"torch=={TORCH}+cpu"
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        for wheel in Path(folder).glob(f"torch-{TORCH}+cpu-cp311-cp311-*x86_64.whl"):
            with wheel.open("rb") as opened:
                value = hashlib.file_digest(opened, "sha256").hexdigest()
            marker = (
                "python_version == '3.11' and sys_platform == 'linux'"
                " and platform_machine == 'x86_64'"
            )
            return {"torch": f"{version} ; {marker} \\\n    --hash=sha256:{value}\n"}
    return {n: b for n, b in split_blocks(path.read_text()).items() if b.startswith(version)}


def write(name: str, purpose: str, pins: Pins) -> None:
    """Write one requirement file, refusing anything that looks like an address."""
    body = "".join(pins[key] for key in sorted(pins))
    text = f"# {purpose}\n# Written by `just lock`; do not edit.\n{body}"
    if "://" in text or re.search(r"^\s*-{1,2}[a-gi-z]", text, flags=re.MULTILINE):
        sys.exit(f"{name}: an address or an index option got into the lock; nothing was written")
    (LOCKS / name).write_text(text)
    print(f"requirements/{name}: {len(pins)} pinned")


def main() -> None:
    """Resolve once for everything, then share the result out over the files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    torch = f"torch=={TORCH}"

    everything = compile_pins([*project["dependencies"], torch])
    cuda = {n: b for n, b in everything.items() if n.startswith(CUDA_PARTS)}
    runtime = {n: b for n, b in everything.items() if n not in cuda and n != "torch"}
    write("runtime.txt", "What vnquant needs at run time, torch apart.", runtime)
    only_torch = {"torch": everything["torch"]}
    write("torch-cpu.txt", f"torch {TORCH}, CPU wheel.", cpu_wheel_pin(LOCKS / "torch-cpu.txt"))
    write("torch.txt", f"torch {TORCH}, public wheels.", only_torch)
    write("torch-cuda.txt", "What a CUDA wheel of torch needs on Linux.", cuda)
    for name, (parts, purpose) in LOCKED.items():
        asked = [line for part in parts for line in extras[part]]
        pins = compile_pins([*project["dependencies"], torch, *asked], fixed=everything)
        # What the extra itself asks for stays, even if a CUDA torch would bring it along too.
        named = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in asked}
        kept = {n: b for n, b in pins.items() if n not in everything or n in named}
        write(f"{name}.txt", purpose, kept)
    for name, wanted in TOOLS.items():
        write(f"{name}.txt", f"Pinned {name} tool.", compile_pins([wanted], fixed=runtime))


if __name__ == "__main__":
    main()
    subprocess.run([sys.executable, str(Path(__file__).with_name("image_locks.py"))], check=True)
