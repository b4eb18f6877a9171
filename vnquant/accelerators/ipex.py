"""Whether intel-extension-for-pytorch is used. It must earn its place, or it stays off.

Its last release, 2.8, is for torch 2.8. With AVX2 alone, as on an i7-14700, `ipex.optimize` changes
nothing by default and refuses bfloat16, and the weights it prepacks crash the fast path of torch's
encoder. A stack of models has its weights in one matrix and multiplies with `baddbmm`, so there is
no module that `ipex.optimize` could rewrite; what is left is what importing it changes. That is
what the check measures.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import time
from typing import Any, Literal

import torch

from vnquant.errors import UsageError

IpexChoice = Literal["auto", "on", "off"]
MODULE = "intel_extension_for_pytorch"
GAIN = 1.05
"""How much faster a step must be to be worth a second library."""
LIMIT_SECONDS = 120


def decide(choice: IpexChoice) -> tuple[bool, str]:
    """Whether IPEX is on, and why; with ``auto`` after a measured check of a few seconds.

    Raises:
        UsageError: it was asked for and cannot be used.
    """
    if choice == "off":
        return False, "switched off"
    if importlib.util.find_spec(MODULE) is None:
        if choice == "on":
            raise UsageError(
                "intel-extension-for-pytorch is not installed",
                where="--ipex on",
                fix="use the CPU image, or --ipex auto",
            )
        return False, "not installed"
    found = measure()
    refusal, instead = None, "auto"
    if "error" in found:
        refusal = f"cannot be used ({found['error']})"
    elif not found["same"]:
        refusal, instead = "it changes the results", "off"
    elif choice == "auto" and found["gain"] < GAIN:
        refusal = f"no gain: {found['gain']:.2f}x, less than {GAIN:.2f}x"
    if refusal is not None:
        if choice == "on":
            raise UsageError(refusal, where="--ipex on", fix=f"use --ipex {instead}")
        return False, refusal
    importlib.import_module(MODULE)
    asked = "asked for; " if choice == "on" else ""
    return True, f"{asked}measured gain {found['gain']:.2f}x"


def measure() -> dict[str, Any]:
    """What loading IPEX does to a step: ``same`` and ``gain``, or an ``error``.

    In a process of its own, because loading cannot be undone and may crash: a refusal must leave
    this process as it was. The child inherits our affinity.
    """
    code = f"import json; from {__name__} import trial; print(json.dumps(trial({{threads}})))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code.format(threads=torch.get_num_threads())],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"the check took more than {LIMIT_SECONDS} s"}
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return {"error": f"exit code {done.returncode}: {said[-1][:120] if said else 'silent'}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def trial(threads: int) -> dict[str, Any]:
    """Load IPEX into this process and compare; see `measure`."""
    torch.set_num_threads(threads)
    before, plain = _step()
    importlib.import_module(MODULE)
    after, fast = _step()
    same = torch.allclose(before, after, rtol=1e-4, atol=1e-5)
    return {"same": same, "gain": plain / fast}


def _step() -> tuple[torch.Tensor, float]:
    """Result and seconds of a small stack's forward and backward pass, best of six."""
    make = torch.Generator().manual_seed(0)
    x = torch.randn(4, 960, 128, generator=make)
    w = torch.randn(4, 128, 512, generator=make, requires_grad=True)
    v = torch.randn(4, 512, 128, generator=make, requires_grad=True)
    best, result = float("inf"), torch.empty(0)
    for _ in range(6):
        began = time.perf_counter()
        hidden = torch.nn.functional.gelu(torch.bmm(x, w))
        loss = torch.bmm(hidden, v).pow(2).mean()
        grads = torch.autograd.grad(loss, [w, v])
        best = min(best, time.perf_counter() - began)
        result = torch.cat([g.flatten() for g in grads])
    return result, best
