"""Small stacks on which hand-written gradients are compared with autograd's."""

from __future__ import annotations

import numpy as np
import torch

from vnquant.spec import MemberSpec, ModelSpec
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.losses import per_model_loss
from vnquant.stockformer.model import Drop, forward, sites
from vnquant.stockformer.randomness import drop_levels, model_keys, site_keys


class Case:
    """A stack of two models with dropout, its windows and targets."""

    def __init__(
        self,
        batch: int,
        layers: int,
        d: int,
        heads: int,
        ff: int,
        seed: int = 0,
        inputs: int = 50,
        device: str = "cpu",
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
        self.rows = self.rows.to(device)
        self.x = torch.randn(2, batch, 60, inputs, generator=make).to(device)
        self.y = torch.randn(2, batch, 5, generator=make).to(device)
        keys = model_keys(seed, ["AAA", "BBB"], [0, 0]).to(device)
        step = torch.tensor([3, 4], dtype=torch.int32, device=device)
        level = drop_levels(torch.tensor([0.1, 0.2])).to(device)
        self.drop = Drop(site_keys(keys, step, sites(self.shape)), level)

    def loss(self, raw: torch.Tensor) -> torch.Tensor:
        weight = torch.ones(self.y.shape[:2], device=self.y.device)
        weight[1, -1] = 0.0
        return per_model_loss(raw, self.y, weight, 1.0)

    def plain(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = self.rows.clone().requires_grad_()
        loss = self.loss(forward(self.shape, leaf, self.x.to(dtype), self.drop))
        return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    """Relative, of the norms."""
    return float((found - true).norm() / true.norm().clamp(min=1e-12))


def gradient_errors(case: Case, found: torch.Tensor, true: torch.Tensor) -> dict[str, float]:
    """The worst parameter's relative error, and what must be zero: padding and key biases."""
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
    return {"worst_parameter": worst, "padding": padding, "key_bias": keys}
