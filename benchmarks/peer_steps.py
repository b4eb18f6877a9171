"""What others would write instead of one stack: steps of the same encoder, model by model or not.

Each function returns a callable that takes one training step of every model. Networks and
optimisers are those of `benchmarks.steps`; only how the models are put together differs.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.roofline import shape_of
from benchmarks.steps import BATCH, FEATURES, HORIZON, LOOKBACK, PlainModel
from vnquant.spec import ModelSpec
from vnquant.stockformer.losses import per_model_loss


class Absent(Exception):
    """A peer's library is not installed; the message is the reason."""


def require(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise Absent(f"{name} is not installed (extra `bench`)")


def vmap_step(model: ModelSpec, models: int, device: str, dtype: torch.dtype) -> Callable[[], None]:
    """`torch.func`: one plain module mapped over stacked state, one AdamW over the stack.

    On a CPU the fused attention cannot be mapped (torch falls back to a loop), so the plain one is
    used there.
    """
    shape = shape_of(model, 0)
    nets = [PlainModel(shape, model.members[0].dropout).to(device) for _ in range(models)]
    stacked, buffers = stack_module_state(nets)
    base = copy.deepcopy(nets[0]).to("meta")
    parameters = {k: v.detach().clone() for k, v in stacked.items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=5e-4, weight_decay=0.05)
    x = torch.randn(models, BATCH, LOOKBACK, FEATURES, device=device)
    y = torch.randn(models, BATCH, HORIZON, device=device)
    weight = torch.ones(1, BATCH, device=device)

    def loss_of(
        own: dict[str, torch.Tensor],
        fixed: dict[str, torch.Tensor],
        window: torch.Tensor,
        target: torch.Tensor,
    ) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            raw = functional_call(base, (own, fixed), (window,))
        return per_model_loss(raw.float()[None], target[None], weight, 1.0).sum()

    mapped = vmap(grad_and_value(loss_of), randomness="different")

    def step() -> None:
        with sdpa_kernel(SDPBackend.MATH) if device == "cpu" else contextlib.nullcontext():
            gradients, _ = mapped(parameters, buffers, x, y)
        squares = sum(g.flatten(1).square().sum(1) for g in gradients.values())
        clip = (1.0 / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        for name, parameter in parameters.items():
            gradient = gradients[name]
            parameter.grad = gradient * clip.view(-1, *[1] * (gradient.ndim - 1))
        optimiser.step()

    return step


def compiled(net: nn.Module, device: str) -> nn.Module:
    """With CUDA graphs on a GPU, where launches are what a small model waits for."""
    made: Any = torch.compile(net, mode="reduce-overhead" if device == "cuda" else "default")
    return made


def neuralforecast_seconds(model: ModelSpec, device: str, *, steps: int) -> dict[str, float]:
    """Seconds per step and of set-up when each series is fitted by itself.

    PatchTST with patches of one session is the library's nearest network: an encoder of the same
    width and depth over 61 tokens, but of one value each instead of 50 features, and all tokens go
    through its last layer and head. Two fits of different length tell set-up from steps.

    Raises:
        Absent: the library is not installed.
    """
    require("neuralforecast")
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MAE
    from neuralforecast.models import PatchTST

    for noisy in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    walk = np.random.default_rng(0).normal(size=2000).cumsum()
    series = pd.DataFrame({"unique_id": "S", "ds": np.arange(2000), "y": walk})

    def fit(count: int) -> float:
        net = PatchTST(
            h=HORIZON,
            input_size=LOOKBACK,
            encoder_layers=model.members[0].layers,
            n_heads=model.heads,
            hidden_size=model.d_model,
            linear_hidden_size=model.d_ff,
            patch_len=1,
            stride=1,
            dropout=model.members[0].dropout,
            loss=MAE(),
            max_steps=count,
            batch_size=1,
            windows_batch_size=BATCH,
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            **({"precision": "bf16-mixed"} if device == "cuda" else {}),
        )
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            NeuralForecast(models=[net], freq=1).fit(df=series)
        return time.perf_counter() - began

    fit(2)  # what happens once in a process
    short, long = fit(steps), fit(3 * steps)
    per_step = (long - short) / (2 * steps)
    return {"step": per_step, "set_up": short - steps * per_step}


def lightgbm_seconds(*, windows: int = 1984, rounds: int = 100) -> float:
    """Seconds to fit one symbol: a regressor for each session ahead on the newest 50 features.

    Not the same model at all; it says what the customary alternative costs.

    Raises:
        Absent: the library is not installed.
    """
    require("lightgbm")
    import lightgbm

    rng = np.random.default_rng(0)
    x = rng.normal(size=(windows, FEATURES)).astype(np.float32)
    y = rng.normal(size=(windows, HORIZON))
    settings = {
        "objective": "regression",
        "verbosity": -1,
        "num_threads": torch.get_num_threads(),
        "deterministic": True,
        "seed": 0,
    }
    began = time.perf_counter()
    for target in y.T:
        lightgbm.train(settings, lightgbm.Dataset(x, target), num_boost_round=rounds)
    return time.perf_counter() - began
