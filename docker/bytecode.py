"""Compile modules: ``bytecode.py FOLDER [STAMP]``, those that are newer than the file STAMP.

Byte code that names its source by date would be stale after the image's dates are rewritten, and
different in every build; hash-based byte code is neither.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from py_compile import PycInvalidationMode, PyCompileError
from py_compile import compile as compile_file

# Written for another Python, and only imported there, or wrong on purpose.
NOT_FOR_US = ("torch/testing/_internal/py3", "/lib2to3/tests/", "/test/")


def compile_one(path: str) -> str:
    """Compile one module; return what is wrong with it, or nothing."""
    try:
        compile_file(path, doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    except PyCompileError as error:
        return "" if any(part in path for part in NOT_FOR_US) else f"{path}: {error.msg}"
    return ""


def main(folder: str, stamp: str | None = None) -> None:
    """Compile what is newer than the stamp file; without one, everything."""
    since = os.stat(stamp).st_ctime_ns if stamp else 0
    found = sorted(
        str(path)
        for path in Path(folder).rglob("*.py")
        if path.is_file() and path.stat().st_ctime_ns >= since
    )
    with ProcessPoolExecutor() as pool:
        wrong = [text for text in pool.map(compile_one, found, chunksize=64) if text]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
