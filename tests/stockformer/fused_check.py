"""Measure how far the Triton kernels are from autograd; prints one JSON line. Also for a GPU."""

from __future__ import annotations

import json

import numpy as np
import torch

from vnquant.spec import MemberSpec, ModelSpec
from vnquant.stockformer import fused
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.losses import per_model_loss
from vnquant.stockformer.model import Drop, forward, sites
from vnquant.stockformer.randomness import drop_levels, model_keys, site_keys
from vnquant.training import optimizer, triton_adamw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Case:
    """A stack of two models with dropout, its windows and targets."""

    def __init__(
        self, batch: int, layers: int, d: int, heads: int, ff: int, seed: int = 0, inputs: int = 50
    ) -> None:
        member = MemberSpec(layers=layers, dropout=0.1)
        model = ModelSpec(d_model=d, heads=heads, d_ff=ff, members=(member,))
        self.shape = Shape.of(model, 0, features=inputs, lookback=60, horizon=5)
        rows = np.stack([self.shape.initial_row(np.random.default_rng(i)) for i in range(2)])
        make = torch.Generator().manual_seed(1)
        self.rows = torch.from_numpy(rows)
        self.rows += 0.02 * torch.randn(self.rows.shape, generator=make)
        for p in self.shape.parameters:
            self.rows[:, p.offset + p.size : p.offset + p.padded] = 0.0
        self.rows = self.rows.to(DEVICE)
        self.x = torch.randn(2, batch, 60, inputs, generator=make).to(DEVICE)
        self.y = torch.randn(2, batch, 5, generator=make).to(DEVICE)
        keys = model_keys(seed, ["AAA", "BBB"], [0, 0]).to(DEVICE)
        step = torch.tensor([3, 4], dtype=torch.int32, device=DEVICE)
        level = drop_levels(torch.tensor([0.1, 0.2])).to(DEVICE)
        self.drop = Drop(site_keys(keys, step, sites(self.shape)), level)

    def loss(self, raw: torch.Tensor) -> torch.Tensor:
        weight = torch.ones(self.y.shape[:2], device=DEVICE)
        weight[1, -1] = 0.0
        return per_model_loss(raw, self.y, weight, 1.0)

    def plain(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = self.rows.clone().requires_grad_()
        loss = self.loss(forward(self.shape, leaf, self.x.to(dtype), self.drop))
        return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]

    def fused(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return fused.gradient(self.shape, self.rows, self.x.to(dtype), self.drop, self.loss)


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm().clamp(min=1e-12))


def compare(case: Case) -> dict[str, float]:
    loss, true = case.plain(torch.float32)
    found_loss, found = case.fused(torch.float32)
    worst = padding = keys = 0.0
    for p in case.shape.parameters:
        here = slice(p.offset, p.offset + p.size)
        worst = max(worst, error(found[:, here], true[:, here]))
        rest = found[:, p.offset + p.size : p.offset + p.padded]
        padding = max(padding, float(rest.abs().max()) if rest.numel() else 0.0)
        if p.name.endswith(("qkv.bias", "kv.bias")):
            d = case.shape.d_model
            begin = p.offset + (d if p.name.endswith("qkv.bias") else 0)
            keys = max(keys, float(found[:, begin : begin + d].abs().max()))
    outputs = fused.outputs(case.shape, case.rows, case.x)
    return {
        "loss": float((loss - found_loss).abs().max()),
        "worst_parameter": worst,
        "outputs": float((outputs - forward(case.shape, case.rows, case.x)).abs().max()),
        "padding": padding,
        "key_bias": keys,
    }


def half() -> dict[str, float]:
    # The interpreter's bfloat16 products are wrong, so it is given float16.
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float16
    case = Case(2, 3, 64, 4, 128)
    _, true = case.plain(torch.float32)
    return {
        "gradient": error(case.fused(dtype)[1], true),
        "plain_gradient": error(case.plain(dtype)[1], true),
    }


def adamw() -> dict[str, float]:
    case = Case(1, 2, 64, 4, 128)
    gradient = torch.randn(case.rows.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    gradient = torch.cat((gradient, gradient, gradient))
    gradient[3, 7] = float("nan")
    rows = torch.cat((case.rows, case.rows, case.rows))
    before = [rows, 0.1 * rows, rows * rows]
    states = [[t.clone() for t in before] for _ in range(2)]
    moving = torch.tensor([True, True, False, True, True, True], device=DEVICE)
    rest = (
        torch.arange(6, device=DEVICE),
        torch.full((6,), 1e-3, device=DEVICE),
        (0.05 * case.shape.decayed).to(DEVICE),
        moving,
        1.0,
    )
    finite = [
        step(*state, gradient, *rest)
        for step, state in zip((optimizer.adamw_, triton_adamw.adamw_), states, strict=True)
    ]
    pairs = list(zip(*states, strict=True))
    stay = [2, 3]
    return {
        "difference": max(float((a - b).abs().max()) for a, b in pairs),
        "frozen_moved": max(
            float((b[stay] - start[stay]).abs().max())
            for (_, b), start in zip(pairs, before, strict=True)
        ),
        "finite_agrees": float(torch.equal(*finite)),
    }


def main() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    true = Case(2, 3, 64, 4, 128).plain(torch.float32)[1]
    other = Case(2, 3, 64, 4, 128, seed=9).fused(torch.float32)[1]
    result = {
        "small": compare(Case(2, 3, 64, 4, 128)),
        "one_window_tail": compare(Case(3, 2, 64, 4, 128)),
        "wide_heads": compare(Case(1, 2, 64, 2, 256)),
        "pooled": compare(Case(2, 2, 64, 4, 128, inputs=53)),
        "market": compare(Case(2, 2, 64, 4, 128, inputs=60)),
        "half": half(),
        "adamw": adamw(),
        "other_key": {"gradient": error(other, true)},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
