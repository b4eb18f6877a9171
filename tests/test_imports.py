"""The import rules: layers by import-linter, command-line libraries by pattern, a light --help."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND_LINE_LIBRARIES = {"click", "rich"}
COMMAND_LINE_MODULES = re.compile(r"vnquant\.(host\.)?cli\w*(\..+)?")
LIGHT_MODULES = ("vnquant.cli", "vnquant.spec", "vnquant.errors", "vnquant.argv")
HEAVY = ("torch", "pandas", "pyarrow", "sklearn", "scipy", "talib", "pandera", "matplotlib")


def imported_packages(source: Path) -> set[str]:
    """Top-level names of everything a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def module_name(root: Path, source: Path) -> str:
    return ".".join(source.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def loaded_after(statement: str, root: Path) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_import_linter_contracts_hold(repository: Path) -> None:
    code = "from importlinter.cli import lint_imports_command as main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def test_only_the_command_line_modules_import_click_or_rich(repository: Path) -> None:
    users = {
        module_name(repository, source)
        for source in (repository / "vnquant").rglob("*.py")
        if imported_packages(source) & COMMAND_LINE_LIBRARIES
    }
    assert "vnquant.cli" in users
    assert {name for name in users if not COMMAND_LINE_MODULES.fullmatch(name)} == set()


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_nothing_heavy(module: str, repository: Path) -> None:
    assert loaded_after(f"import {module}", repository) & {*HEAVY, "rich"} == set()


def test_help_loads_nothing_heavy(repository: Path) -> None:
    ask = "import contextlib, io, vnquant.cli\n"
    ask += "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
    ask += "    vnquant.cli.main(['--help'])"
    assert loaded_after(ask, repository) & {*HEAVY, "rich", "numpy"} == set()


def test_the_check_would_see_a_heavy_import(repository: Path) -> None:
    assert {"pandas", "numpy"} <= loaded_after("import pandas", repository)
