"""What goes into a build: files of one commit, a package index, a folder of wheels.

None of it may come from the state of the machine: files are taken from the commit, and how packages
are fetched reaches the build only as secrets, which BuildKit keeps out of layers and history.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vnquant.errors import UsageError
from vnquant.host.process import run

# Settings of pip that say where packages come from; nothing else of a user's pip matters to a
# build with pinned hashes, and paths on this disk mean nothing inside it.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


@dataclass(frozen=True)
class Commit:
    """A state of the checkout. ``dirty``: files differ from the commit."""

    sha: str
    epoch: int
    dirty: bool

    @property
    def label(self) -> str:
        """What the image's label and every run's manifest say."""
        return f"{self.sha}-dirty" if self.dirty else self.sha


def checkout() -> Path:
    """The checkout that this package is imported from.

    Raises:
        UsageError: it is an installed copy; images are built from a checkout.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "docker" / "Dockerfile").is_file() or not (root / ".git").exists():
        raise UsageError(
            "images are built from a git checkout of vnquant, and this is an installed copy",
            where=str(root),
            fix="run the command of a checkout's environment: ./just build cpu",
        )
    return root


def commit(root: Path, revision: str = "HEAD") -> Commit:
    """Resolve a revision; only HEAD can be dirty, since other commits are not checked out.

    Raises:
        UsageError: git does not know the revision.
    """
    shown = run(
        ["git", "-C", str(root), "log", "-1", "--format=%H %ct", revision, "--"], check=False
    )
    if shown.code != 0 or not shown.out.strip():
        raise UsageError(
            f"git knows no commit {revision!r}", where=str(root), fix="fetch it, or name another"
        )
    sha, epoch = shown.out.split()
    status = (
        run(["git", "-C", str(root), "status", "--porcelain"]).out if revision == "HEAD" else ""
    )
    return Commit(sha, int(epoch), bool(status.strip()))


def lay_out(root: Path, source: Commit, into: Path) -> None:
    """Write the files of ``source`` into an empty folder; of a dirty one, those on disk."""
    if not source.dirty:
        archive = into.with_suffix(".tar")
        run(["git", "-C", str(root), "archive", f"--output={archive}", source.sha])
        with tarfile.open(archive) as opened:
            # Debian 12's Python 3.11.2 is older than the filter; the archive is git's own.
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            opened.extractall(into, **safely)  # type: ignore[arg-type]
        archive.unlink()
        return
    listed = run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    ).out
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, into / name)


def pip_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """This machine's pip settings, from its files and environment, environment first."""
    found: dict[str, str] = {}
    # Asked, not looked up: find_spec("pip") makes setuptools' import hook give this process the
    # standard library's distutils, with which torch.compile fails. Without pip the answer is empty.
    listed = run([sys.executable, "-m", "pip", "config", "list"], check=False)
    for line in sorted(listed.out.splitlines(), reverse=True):  # install.x before global.x
        section, _, rest = line.partition(".")
        key, _, value = rest.partition("=")
        if section in {"global", "install"} and value:
            found.setdefault(key, str(ast.literal_eval(value)))
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return found


def pip_secrets(settings: Mapping[str, str], into: Path) -> dict[str, Path]:
    """Files for the build's secrets ``pip.conf`` and ``ca.crt``, readable by us alone."""
    lines = ["[global]"]
    for name in PIP_SETTINGS:
        words = [w for w in settings.get(name, "").split() if not w.startswith(("file:", "/"))]
        lines += [f"{name} = {' '.join(words)}"] if words else []
    path = into / "pip.conf"
    path.touch(mode=0o600)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    secrets = {"pip.conf": path}
    bundle = settings.get("cert") or os.environ.get("SSL_CERT_FILE", "")
    if bundle and Path(bundle).is_file():
        secrets["ca.crt"] = Path(bundle)
    return secrets


def local_wheels(lock: Path, given: Path | None, settings: Mapping[str, str], into: Path) -> int:
    """Collect the wheels that only a folder can provide: those pinned with a local version.

    Args:
        given: the folder to look in; None: those that pip's find-links names.

    Returns:
        How many of the pinned ones were found. pip looks for the others in its index.
    """
    folders = [given] if given else [Path(w) for w in settings.get("find-links", "").split()]
    into.mkdir(exist_ok=True)
    count = 0
    pinned = re.findall(r"^([\w.-]+)==([\w.]+\+\w+)", lock.read_text(encoding="utf-8"), re.M)
    for name, version in pinned:
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        wheels = sorted(w for f in folders for w in f.glob(pattern))
        for wheel in wheels:
            shutil.copy(wheel, into / wheel.name)
        count += bool(wheels)
    return count


def base_image(dockerfile: Path) -> str:
    """The base that is used where nobody names another."""
    text = dockerfile.read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE_IMAGE=(\S+)$", text, re.M)
    if found is None:
        raise UsageError("names no base", where=str(dockerfile), fix="restore ARG BASE_IMAGE=")
    return found[1]


def builder_versions() -> dict[str, str]:
    """What made the image: a changed builder is a reason for a changed digest, not a fault."""
    asked = ["docker", "version", "--format", "{{json .}}"]
    answer = json.loads(run(asked).out)
    buildx = run(["docker", "buildx", "version"]).out.split()
    return {
        "engine": str(answer["Server"]["Version"]),
        "cli": str(answer["Client"]["Version"]),
        "buildx": buildx[1] if len(buildx) > 1 else "unknown",
    }
