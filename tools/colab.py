"""Install the official ``colab`` command into an environment of its own; ``--test`` runs its tests.

It needs Python 3.12 and pins libraries that must not meet ours. Prints the command's path. With
``--test`` the emulator's requirements are installed too; words after it go to pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = Path(os.environ.get("VNQUANT_COLAB_TOOL") or ROOT / "build" / "colab-tool")
SHARED = Path(os.environ.get("VNQUANT_SHARED") or ROOT.parent / "shared")
EMULATOR = SHARED / "colab_emulator"
VERSION = "0.7.5"
NAMES = ("python3.12", "python3.13", "python3.14", "python3")


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(f"colab: {text}", file=sys.stderr, flush=True)


def python() -> str | None:
    """A Python that is new enough, on PATH or one of pyenv's."""
    found = [shutil.which(name) for name in NAMES]
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found += [str(p) for p in sorted(versions.glob("3.*/bin/python3"))]
    check = "import sys, venv; sys.exit(sys.version_info < (3, 12))"
    for path in found:
        # pyenv's stand-ins exist even where their Python is not chosen.
        if path is None:
            continue
        if subprocess.run([path, "-c", check], capture_output=True, check=False).returncode == 0:
            return path
    return None


def install(words: list[str]) -> bool:
    """Make the environment, unless it has all of ``words`` already; returns whether it is there."""
    stamp, wanted = TOOL / "vnquant.stamp", "\n".join(words)
    if stamp.exists() and set(words) <= set(stamp.read_text().splitlines()):
        return True
    interpreter = python()
    if interpreter is None:
        say("needs Python 3.12 or newer, and found none")
        return False
    say(f"installing into {TOOL}")
    subprocess.run([interpreter, "-m", "venv", "--clear", str(TOOL)], check=True)
    pip = [str(TOOL / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *words], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return True


def main(words: list[str]) -> int:
    """Install, and test if asked to; pytest's exit code is ours."""
    package = f"google-colab-cli=={VERSION}"
    if words[:1] != ["--test"]:
        if not install([package]):
            return 1
        print(TOOL / "bin" / "colab")
        return 0
    if (EMULATOR / "requirements.txt").is_file():
        lines = (EMULATOR / "requirements.txt").read_text().splitlines()
        emulator = [line for line in lines if line and not line.startswith("#")]
        # A machine of Colab's has pandas; the notebook shows a table.
        install([package, *emulator, "nbclient", "pandas"])
    else:
        say("the emulator is not here (../shared/colab_emulator); its tests will skip")
    command = [sys.executable, "-m", "pytest", "-m", "colab", "tests/colab", *words[1:]]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
