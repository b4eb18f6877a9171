"""Fixtures and settings for all tests. Thread limits are set before torch can be imported."""

from __future__ import annotations

import os
from pathlib import Path

# One process on two cores; under xdist every worker gets one, or they would fight for both.
THREADS = "1" if "PYTEST_XDIST_WORKER" in os.environ else str(min(2, os.cpu_count() or 1))
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, THREADS)
# Beside another busy process, threads that spin at a barrier cost several times the work itself.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pytest  # noqa: E402

try:
    from hypothesis import settings
except ImportError:  # a GPU machine may have pytest alone; tests/gpu needs no more
    settings = None  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("VNQUANT_SHARED") or ROOT.parent / "shared")

# Marks of tests that `./just test` leaves out; `test-containers` and `test-colab` run them.
ELSEWHERE = ("container", "rclone", "colab")

# No deadline: a busy machine is no failure. In CI the examples are the same at every run.
if settings is not None:
    settings.register_profile("here", deadline=None)
    settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
    settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def _no_settings_from_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell exports (VNQUANT_WORKSPACE, VNQUANT_PRICES ...) must not reach a test."""
    for name in [n for n in os.environ if n.startswith("VNQUANT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_prices() -> Path:
    """The real price file, or a skip where it is absent. It must never be copied into the tree."""
    path = SHARED / "data" / "vn_ohlcv.parquet"
    if not path.is_file():
        pytest.skip("the shared price file is not here (../shared/data, or set VNQUANT_SHARED)")
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a container engine or rclone, unless -m or a test's name asks for it."""
    asked = config.getoption("-m") or ""
    if any(mark in asked for mark in ELSEWHERE) or any("::" in word for word in config.args):
        return
    out = [item for item in items if any(map(item.get_closest_marker, ELSEWHERE))]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``gpu`` where there is no CUDA device."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
