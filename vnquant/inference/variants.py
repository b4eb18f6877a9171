"""Faster ways to run a trained model, compared with the plain one on the same windows."""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from vnquant.inference.predictor import Build, Predict, eager
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.model import PLAIN, Pieces, forward, positions


def compiled(shape: Shape, rows: torch.Tensor) -> Predict:
    """The stacked forward pass through `torch.compile`; needs a C++ compiler on the CPU."""
    pieces = Pieces(*(torch.compile(f) for f in PLAIN))
    return lambda x: forward(shape, rows, x, None, pieces)


class LinearStockformer(nn.Module):
    """One model as ordinary `nn.Linear` modules, which is what torch's quantiser understands."""

    def __init__(self, shape: Shape, row: torch.Tensor) -> None:
        super().__init__()
        self.shape = shape
        named = {name: value[0] for name, value in shape.views(row.unsqueeze(0)).items()}
        self.linears = nn.ModuleDict()
        for name, value in named.items():
            if name.endswith(".weight"):
                base = name.removesuffix(".weight")
                linear = nn.Linear(*value.shape)
                linear.weight = nn.Parameter(value.T.contiguous(), requires_grad=False)
                linear.bias = nn.Parameter(named[f"{base}.bias"].clone(), requires_grad=False)
                self.linears[base.replace(".", "_")] = linear
        self.norms = {k: v.clone() for k, v in named.items() if "norm" in k}

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linears[name.replace(".", "_")](x)
        return out

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        gain, bias = self.norms[f"{name}.gain"], self.norms[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], gain, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Windows ``[B, T, F]`` to raw outputs ``[B, 2H + 1]``."""
        s = self.shape
        width = s.d_model // s.heads
        h = self._linear("input", x) + positions(s.lookback, s.d_model, x.device, x.dtype)
        for i in range(s.layers):
            n = self._norm(f"layers.{i}.norm1", h)
            if i < s.layers - 1:
                q, k, v = self._linear(f"layers.{i}.qkv", n).chunk(3, -1)
            else:
                q = self._linear(f"layers.{i}.q", n[:, -1:])
                k, v = self._linear(f"layers.{i}.kv", n).chunk(2, -1)
                h = h[:, -1:]
            q, k, v = (t.unflatten(-1, (s.heads, width)).transpose(1, 2) for t in (q, k, v))
            a = F.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(width))
            h = h + self._linear(f"layers.{i}.out", a.transpose(1, 2).flatten(2))
            f = F.gelu(self._linear(f"layers.{i}.ff1", self._norm(f"layers.{i}.norm2", h)))
            h = h + self._linear(f"layers.{i}.ff2", f)
        return self._linear("head", self._norm("norm", h[:, -1]))


def int8_dynamic(shape: Shape, rows: torch.Tensor) -> Predict:
    """Every linear layer with int8 weights and activations quantised on the fly, model by model."""
    with warnings.catch_warnings():
        # torch.ao's quantiser still works but announces its move to another package.
        warnings.simplefilter("ignore")
        models = [
            torch.ao.quantization.quantize_dynamic(
                LinearStockformer(shape, row).eval(), {nn.Linear}, dtype=torch.qint8
            )
            for row in rows
        ]
    return lambda x: torch.stack([model(part) for model, part in zip(models, x, strict=True)])


VARIANTS: dict[str, Build] = {"eager": eager, "compiled": compiled, "int8": int8_dynamic}
