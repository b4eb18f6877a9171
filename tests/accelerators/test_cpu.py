"""Affinity, threads and IPEX are settled together, and the profile says how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import pytest
import torch

from vnquant.accelerators import ipex
from vnquant.errors import UsageError


def profile(*options: str, cpus: set[int] | None = None) -> dict[str, object]:
    """The profile that a process of its own ends up with, and what is really set there."""
    code = (
        "import json, os, sys\n"
        f"os.sched_setaffinity(0, {cpus or os.sched_getaffinity(0)!r})\n"
        "import torch; from vnquant.accelerators.profile import open_profile\n"
        "from vnquant.spec import TrainingSpec\n"
        f"p = open_profile(TrainingSpec(), device='cpu', {', '.join(options)})\n"
        "real = {'affinity': sorted(os.sched_getaffinity(0)), 'torch': torch.get_num_threads(),\n"
        "        'omp': os.environ['OMP_NUM_THREADS']}\n"
        "print(json.dumps({**p.to_dict(), **real}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_threads_follow_the_affinity_that_we_were_given() -> None:
    cpu = max(os.sched_getaffinity(0))
    found = profile(cpus={cpu})
    assert found["affinity"] == [cpu] == found["cpus"]
    assert found["torch"] == found["threads"] == 1
    assert found["omp"] == "1"


def test_threads_can_be_named() -> None:
    found = profile("threads=3")
    assert found["torch"] == found["threads"] == 3


def test_a_wish_is_recorded_with_what_became_of_it() -> None:
    found = profile("cores='e'")
    assert str(found["cores"]).startswith("e")
    assert found["topology"]


def test_ipex_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipex.importlib.util, "find_spec", lambda _: None)
    assert ipex.decide("auto") == (False, "not installed")
    assert ipex.decide("off") == (False, "switched off")
    with pytest.raises(UsageError, match="not installed"):
        ipex.decide("on")


@pytest.mark.parametrize(
    ("gain", "same", "used", "why"),
    [
        (2.0, True, True, "measured gain 2.00x"),
        (1.01, True, False, "no gain"),
        (0.5, True, False, "no gain"),
        (2.0, False, False, "changes the results"),
    ],
)
def test_ipex_must_earn_its_place(
    monkeypatch: pytest.MonkeyPatch, gain: float, same: bool, used: bool, why: str
) -> None:
    monkeypatch.setattr(ipex.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(ipex.importlib, "import_module", lambda _: types.ModuleType("x"))
    steps = [(torch.ones(3), 1.0), (torch.ones(3) * (1.0 if same else 1.1), 1.0 / gain)]
    monkeypatch.setattr(ipex, "_step", lambda: steps.pop(0))
    found = ipex.decide("auto")
    assert found[0] is used
    assert why in found[1]


def test_ipex_for_another_torch_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str) -> None:
        raise ImportError("undefined symbol: _ZN5torch")

    monkeypatch.setattr(ipex.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(ipex.importlib, "import_module", broken)
    used, why = ipex.decide("auto")
    assert not used
    assert "undefined symbol" in why
    with pytest.raises(UsageError, match="cannot be loaded"):
        ipex.decide("on")
