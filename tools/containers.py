"""Make ready what the container tests need, then run them: ``./just test-containers``.

Builds a base where none can be pulled, the CPU image with torch from a folder of wheels, and the
publisher's image. Without an engine it says so and runs the tests all the same: those that need
one skip with a reason. Words after it go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vnquant.host import image_context

ROOT = Path(__file__).resolve().parent.parent
# A script that makes a base image from Debian's packages alone, where no registry can be reached.
BASE_SCRIPT = ROOT.parent / "shared" / "bin" / "base-image"
LOCAL_BASE = "local/debian-python:bookworm"
MARKS = "container or rclone"


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(f"containers: {text}", file=sys.stderr, flush=True)


def quiet(*command: str) -> bool:
    """Does this command succeed?"""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def base_image() -> str:
    """The base to build on: the pinned one, else one made here."""
    if named := os.environ.get("BASE_IMAGE"):
        return named
    pinned = image_context.base_image(ROOT / "docker" / "Dockerfile")
    if quiet("docker", "image", "inspect", pinned) or quiet("docker", "pull", "--quiet", pinned):
        return pinned
    if quiet("docker", "image", "inspect", LOCAL_BASE):
        return LOCAL_BASE
    if not BASE_SCRIPT.is_file():
        sys.exit(f"containers: {pinned} cannot be pulled; name another base in BASE_IMAGE.")
    say("the pinned base cannot be pulled; making one from Debian's packages")
    subprocess.run([str(BASE_SCRIPT), LOCAL_BASE], check=True, stdout=sys.stderr)
    return LOCAL_BASE


def prepare() -> None:
    """Build the images that the tests use."""
    os.environ["BASE_IMAGE"] = base_image()
    for variant in ("cpu-wheels", "publisher"):
        say(f"building {variant}")
        subprocess.run(
            [sys.executable, "-m", "vnquant", "image", "build", variant],
            check=True,
            cwd=ROOT,
            stdout=sys.stderr,
        )


def main() -> int:
    """Prepare and test; pytest's exit code is ours."""
    if quiet("docker", "version"):
        prepare()
    else:
        say("no container engine answers; the tests that need one will skip")
    command = [sys.executable, "-m", "pytest", "-m", MARKS, *sys.argv[1:]]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
