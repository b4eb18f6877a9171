"""The setup script: it must refuse what it did not make, and cost nothing when nothing changed."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


def run(repository: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "tools" / "environment.py"), *words]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def setup_script(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module whose environment is a folder of this test."""
    monkeypatch.setenv("VNQUANT_VENV", str(tmp_path / "env"))
    path = repository / "tools" / "environment.py"
    spec = importlib.util.spec_from_file_location("environment_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["environment.py"])
    return module


@pytest.fixture
def installs(setup_script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what would be installed instead of installing it."""
    done: list[str] = []

    def make(state: object) -> bool:
        if setup_script.PYTHON.exists():
            return False
        done.append("venv")
        setup_script.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        setup_script.PYTHON.touch()
        return True

    monkeypatch.setattr(setup_script, "make_venv", make)
    monkeypatch.setattr(setup_script, "install_just", lambda: done.append("just"))
    monkeypatch.setattr(setup_script, "install_packages", lambda: done.append("packages"))
    monkeypatch.setattr(setup_script, "pip_install", lambda *words: done.append("project"))
    return done


def test_an_old_python_can_read_the_script(repository: Path) -> None:
    # Otherwise it would show a SyntaxError instead of asking for a newer Python.
    text = (repository / "tools" / "environment.py").read_text("utf-8")
    assert "annotations" not in text
    ast.parse(text, feature_version=(3, 6))


def test_unknown_word_is_refused(repository: Path, tmp_path: Path) -> None:
    done = run(repository, "everything", VNQUANT_VENV=str(tmp_path / "env"))
    assert done.returncode == 2
    assert "unknown words: everything" in done.stderr
    assert not (tmp_path / "env").exists()


def test_a_folder_made_by_someone_else_is_left_alone(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    done = run(repository, VNQUANT_VENV=str(tmp_path))
    assert done.returncode == 1
    assert "VNQUANT_VENV" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_second_run_installs_nothing(setup_script: ModuleType, installs: list[str]) -> None:
    setup_script.main()
    assert installs == ["venv", "just", "packages", "project"]
    setup_script.main()
    assert installs == ["venv", "just", "packages", "project"]


def test_just_comes_first_and_alone(
    setup_script: ModuleType, installs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["environment.py", "just"])
    setup_script.main()
    assert installs == ["venv", "just"]
    monkeypatch.setattr(sys, "argv", ["environment.py"])
    setup_script.main()
    assert installs == ["venv", "just", "packages", "project"]


def test_an_interrupted_setup_is_continued(
    setup_script: ModuleType, installs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = setup_script.install_packages

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_script, "install_packages", interrupted)
    with pytest.raises(SystemExit) as stopped:
        setup_script.main()
    assert stopped.value.code == 130
    monkeypatch.setattr(setup_script, "install_packages", finish)
    setup_script.main()
    assert installs == ["venv", "just", "packages", "project"]


def test_a_changed_lock_installs_packages_again_but_not_just(
    setup_script: ModuleType, installs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_script.main()
    changed = {**setup_script.wanted_state(), "packages": "another digest"}
    monkeypatch.setattr(setup_script, "wanted_state", lambda: changed)
    del installs[:]
    setup_script.main()
    assert installs == ["packages"]


def test_an_environment_whose_python_has_gone_is_made_again(
    setup_script: ModuleType, installs: list[str]
) -> None:
    setup_script.main()
    setup_script.PYTHON.unlink()
    del installs[:]
    setup_script.main()
    assert installs == ["venv", "just", "packages", "project"]


def test_a_package_that_pip_was_writing_when_killed_is_installed_again(
    setup_script: ModuleType,
) -> None:
    packages = setup_script.VENV / "lib" / "python3.11" / "site-packages"
    for name, files in {"whole": ("METADATA", "INSTALLER"), "half": ("METADATA",)}.items():
        (packages / f"{name}-1.0.dist-info").mkdir(parents=True)
        for file in files:
            (packages / f"{name}-1.0.dist-info" / file).touch()
    setup_script.discard_half_installed()
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]
