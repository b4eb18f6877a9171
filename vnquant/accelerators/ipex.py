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
import time
from typing import Literal

import torch

from vnquant.errors import UsageError

IpexChoice = Literal["auto", "on", "off"]
MODULE = "intel_extension_for_pytorch"
GAIN = 1.05
"""How much faster a step must be to be worth a second library."""


def decide(choice: IpexChoice) -> tuple[bool, str]:
    """Whether IPEX is on, and why; with ``auto`` after a measured check of about a second.

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
    before, plain = _step()
    try:
        importlib.import_module(MODULE)
    except Exception as error:  # a binary for another torch fails in many ways
        if choice == "on":
            raise UsageError(
                f"cannot be loaded ({error})", where="--ipex on", fix="use --ipex auto"
            ) from error
        return False, f"cannot be loaded ({str(error)[:120].splitlines()[0]})"
    after, fast = _step()
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-5):
        if choice == "on":
            raise UsageError("changes the results", where="--ipex on", fix="use --ipex off")
        return False, "it changes the results"
    gain = plain / fast
    if choice == "on":
        return True, f"asked for; measured gain {gain:.2f}x"
    if gain < GAIN:
        return False, f"no gain: {gain:.2f}x, less than {GAIN:.2f}x"
    return True, f"measured gain {gain:.2f}x"


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
