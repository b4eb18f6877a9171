"""What the repository must not hold, and what its lock files must."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vnquant

MOST_LINES = 400
TORCH_LOCKS = ("torch.txt", "torch-cpu.txt", "torch-cuda.txt")
INSTALLED_LOCKS = ("runtime.txt", "dev.txt", "just.txt", "build.txt", *TORCH_LOCKS)
RECIPES = {
    *("default", "setup", "demo", "test", "lint", "fix"),
    *("docs", "bench", "lock", "clean"),
}
TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".json", ".csv", ".yml", ".yaml", ".sh", ""}

# Written in pieces, or this file would be the first to break the rule.
INDEX_ADDRESS = re.compile(
    r"//[^\s/]*(?:py" r"pi\.|python" r"hosted\.|pytorch\.org/whl|npm" r"js\.|deb\.debian\.)"
    r"|(?:index-url|find-links)[ =]+\S*/"
)  # fmt: skip
MACHINE_PATH = re.compile(r"(?<![\w.~*>])/(?:work|root|home|Users)/[\w.]|/opt/(?:wheels|pypi)")
PIN = re.compile(
    r"^(?P<what>[A-Za-z0-9][^\\\n]*==[^\\\n]*?)(?: \\\n +--hash=sha256:[0-9a-f]{64})+\n",
    re.MULTILINE,
)


def our_files(root: Path) -> list[Path]:
    """Tracked and new files that git does not ignore; without git, what is no build output."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True)
        names = [name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        skipped = re.compile(
            r"(^|/)(\.venv[^/]*|\.hypothesis|build|__pycache__|\.\w+_cache|[^/]+\.egg-info)/"
        )
        found = (p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        names = [name for name in found if not skipped.search(name)]
    return sorted(root / name for name in names if (root / name).is_file())


def project(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return content


def pins(path: Path) -> dict[str, Requirement]:
    found = [Requirement(match["what"]) for match in PIN.finditer(path.read_text("utf-8"))]
    return {canonicalize_name(pin.name): pin for pin in found}


def test_no_file_holds_an_index_address_or_a_path_of_one_machine(repository: Path) -> None:
    files = [f for f in our_files(repository) if f.suffix in TEXT]
    assert repository / "pyproject.toml" in files
    found = [
        f"{file.relative_to(repository)}:{number}: {line.strip()[:80]}"
        for file in files
        for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1)
        if INDEX_ADDRESS.search(line) or MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url " + "https://example.org/simple",
        "-f https://files.python" + "hosted.org/x",
        "see /wo" + "rk/main/vnquant",
    ],
)
def test_the_patterns_find_what_they_are_for(line: str) -> None:
    assert INDEX_ADDRESS.search(line) or MACHINE_PATH.search(line)


def test_no_price_file_is_in_the_tree(repository: Path) -> None:
    assert [f for f in our_files(repository) if f.suffix in {".parquet", ".feather"}] == []


def test_every_module_stays_short(repository: Path) -> None:
    ours = {f.relative_to(repository): f for f in our_files(repository) if f.suffix == ".py"}
    modules = {str(name): f for name, f in ours.items() if name.parts[0] != "tests"}
    assert len(modules) > 10
    lengths = {name: len(f.read_text("utf-8").splitlines()) for name, f in modules.items()}
    assert {name: n for name, n in lengths.items() if n >= MOST_LINES} == {}


ALL_LOCKS = sorted({*INSTALLED_LOCKS, "bench.txt", "host.txt", "study.txt", "uv.txt"})


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_lock_is_pins_and_hashes_only(name: str, repository: Path) -> None:
    text = (repository / "requirements" / name).read_text("utf-8")
    assert pins(repository / "requirements" / name)
    rest = [line for line in PIN.sub("", text).splitlines() if not line.startswith("#")]
    assert rest == []
    assert "://" not in text


def test_locks_satisfy_what_the_project_asks_for(repository: Path) -> None:
    locks = repository / "requirements"
    locked = {
        k: v
        for name in ("runtime", "torch", "dev", "host", "study", "bench", "images/jupyter")
        for k, v in pins(locks / f"{name}.txt").items()
    }
    extras = project(repository)["optional-dependencies"]
    asked = [*project(repository)["dependencies"], *(r for extra in extras.values() for r in extra)]
    for requirement in map(Requirement, asked):
        version = next(iter(locked[canonicalize_name(requirement.name)].specifier)).version
        assert requirement.specifier.contains(version), f"{requirement} but locked {version}"


def test_all_torch_locks_are_of_one_release(repository: Path) -> None:
    public = next(iter(pins(repository / "requirements" / "torch.txt")["torch"].specifier)).version
    cpu = next(iter(pins(repository / "requirements" / "torch-cpu.txt")["torch"].specifier)).version
    assert cpu == f"{public}+cpu"
    cuda = pins(repository / "requirements" / "torch-cuda.txt")
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in cuda)


def test_version_comes_from_the_package(repository: Path) -> None:
    content = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))
    assert content["project"]["dynamic"] == ["version"]
    assert content["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "vnquant.__version__"}
    try:
        installed = importlib.metadata.version("vnquant")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("vnquant is imported from the checkout and not installed")
    assert installed == vnquant.__version__


def test_every_promised_recipe_exists(repository: Path) -> None:
    text = (repository / "Justfile").read_text("utf-8")
    # `name words: needs` or `alias name := recipe`; `name := value` is a variable.
    names = re.findall(r"^([a-z]+)(?: \*?\w+)*:(?!=)", text, re.MULTILINE)
    names += re.findall(r"^alias ([a-z]+) :=", text, re.MULTILINE)
    assert RECIPES - set(names) == set()
