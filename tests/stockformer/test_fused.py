"""The Triton kernels against autograd. On a CPU they run in Triton's interpreter, in a process of
their own: whether to interpret is decided when a kernel's module is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")

CHECK = Path(__file__).with_name("fused_check.py")


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float]]:
    done = subprocess.run(
        [sys.executable, str(CHECK)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("case", ["small", "one_window_tail", "wide_heads", "pooled", "market"])
def test_float32_agrees_with_autograd(measured: dict[str, dict[str, float]], case: str) -> None:
    found = measured[case]
    assert found["loss"] < 1e-5
    assert found["worst_parameter"] < 1e-4, "relative error of the worst parameter's gradient"
    assert found["outputs"] < 1e-5
    assert found["padding"] == 0.0
    assert found["key_bias"] == 0.0


def test_half_precision_is_no_worse_than_autograd_in_half_precision(
    measured: dict[str, dict[str, float]],
) -> None:
    found = measured["half"]
    assert found["gradient"] < 1.5 * found["plain_gradient"] < 0.02


def test_adamw_agrees_and_freezes_what_must_not_move(
    measured: dict[str, dict[str, float]],
) -> None:
    found = measured["adamw"]
    assert found["difference"] < 1e-6
    assert found["frozen_moved"] == 0.0
    assert found["finite_agrees"] == 1.0


def test_the_check_can_fail(measured: dict[str, dict[str, float]]) -> None:
    """Another dropout key gives another gradient: the comparison does see dropout."""
    assert measured["other_key"]["gradient"] > 0.05
