"""Affinity, threads and IPEX are settled together, and the profile says how."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import types
from pathlib import Path

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
    monkeypatch.setattr(ipex, "measure", lambda: {"same": same, "gain": gain})
    found = ipex.decide("auto")
    assert found[0] is used
    assert why in found[1]


def pretend_installed(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A module in the place of IPEX, for this process and its children."""
    (folder / f"{ipex.MODULE}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import torch; was = torch.bmm; torch.bmm = lambda a, b: was(a, b) * 1.1", "changes"),
        (
            "import time, torch; was = torch.bmm\n"
            "def slow(a, b): time.sleep(0.05); return was(a, b)\ntorch.bmm = slow",
            "no gain",
        ),
        ("raise ImportError('undefined symbol: _ZN5torch')", "undefined symbol"),
        ("import os; os.abort()", "exit code -6"),
    ],
)
def test_a_refusal_leaves_this_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    pretend_installed(tmp_path, monkeypatch, code)
    before = torch.bmm
    used, reason = ipex.decide("auto")
    assert not used
    assert why in reason
    assert ipex.MODULE not in sys.modules
    assert torch.bmm is before


def test_ipex_for_another_torch_is_an_error_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_installed(tmp_path, monkeypatch, "raise ImportError('undefined symbol: _ZN5torch')")
    with pytest.raises(UsageError, match="undefined symbol"):
        ipex.decide("on")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt"
)
def test_memory_given_back_by_a_tensor_is_used_again() -> None:
    code = (
        "import resource, sys, torch; from vnquant.accelerators import cpu\n"
        "if sys.argv[1] == 'keep': assert cpu.keep_freed_memory()\n"
        "make = lambda: torch.ones(16_000_000)\n"
        "make()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(50): make()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", code, how], text=True))
        for how in ("keep", "default")
    }
    assert faults["keep"] < faults["default"] / 10
