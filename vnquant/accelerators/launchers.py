"""Triton where there is no C compiler: its C modules are built beforehand and found by source.

Triton writes a C module for every kernel signature, and one that talks to the driver, and compiles
them at the first launch. An image has no compiler: its build makes those modules with `collect`,
and `use` hands them out. Kernels themselves need no compiler but Triton's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vnquant.errors import UsageError

VARIABLE = "VNQUANT_LAUNCHERS"
"""Names the folder of modules, in an image that has one."""
COMPILERS = ("cc", "gcc", "clang")
NO_DRIVER = "/nonexistent"


def compiler() -> str | None:
    """The C compiler that Triton would take."""
    return os.environ.get("CC") or next(filter(None, map(shutil.which, COMPILERS)), None)


def folder() -> Path | None:
    """Where this machine's ready-made modules are, if it has any."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path and Path(path).is_dir() else None


def _place(folder: Path, source: str) -> Path:
    # Triton hands over the path of a file that it has just written.
    return folder / f"{hashlib.sha256(Path(source).read_bytes()).hexdigest()}.so"


def use(folder: Path) -> None:
    """Have Triton take its C modules from a folder instead of compiling them."""
    # The modules were built without the driver: its symbols must be there before they are loaded.
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)

    def find(name: str, source: str, *_: Any) -> str:
        place = _place(folder, source)
        if not place.is_file():
            raise UsageError(
                f"there is no ready-made Triton module {name} for this kernel, and no C compiler",
                where=str(folder),
                fix="set --no-compile, or run where there is a C compiler",
            )
        return str(place)

    _instead_of_compiling(find)


def collect(folder: Path) -> Callable[[Any, Any], None]:
    """Have Triton compile into a folder; returns what makes a kernel's launcher.

    Nothing is linked against the driver, which a build does not have: `use` loads it first.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def build(name: str, source: str, work: str, _: Any, include: list[str], *__: Any) -> str:
        place = _place(folder, source)
        if not place.is_file():
            cc = compiler() or "cc"
            places = [*include, work, sysconfig.get_path("include", _scheme())]
            words = [cc, source, "-O3", "-shared", "-fPIC", "-Wno-psabi", "-o", str(place)]
            # The name of the temporary folder must not reach the module.
            words += [f"-ffile-prefix-map={work}=.", *(f"-I{path}" for path in places)]
            subprocess.run(words, check=True)
        return str(place)

    _instead_of_compiling(build)
    return load


def check(folder: Path) -> Callable[[Any, Any], None]:
    """Like `use`; returns what asks for a kernel's launcher and raises where there is none."""
    use(folder)
    return load


def load(source: Any, metadata: Any) -> None:
    """Ask Triton for its own C module and a kernel's: compiled now, they are in its cache later."""
    from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

    logging.getLogger("triton.runtime.build").setLevel(logging.ERROR)  # of what cannot be loaded
    for make in (CudaUtils, lambda: CudaLauncher(source, metadata)):
        try:
            make()
        except (ImportError, AttributeError, AssertionError):
            # Without a driver there is nothing to link to (an assertion of Triton's), a module is
            # found but cannot be loaded, and newer launchers miss what the first module brings.
            continue


def _instead_of_compiling(build: Callable[..., str]) -> None:
    from triton import knobs

    knobs.build.impl = build
    # Otherwise Triton looks for the driver's library before it asks us.
    knobs.nvidia.libcuda_path = knobs.nvidia.libcuda_path or NO_DRIVER


def _scheme() -> str:
    default = sysconfig.get_default_scheme()
    return "posix_prefix" if default == "posix_local" else default  # Debian's own
