"""The stacked forward pass against torch's own encoder, and against itself in other stacks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from vnquant.inference.variants import LinearStockformer
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.model import Drop, forward, positions, sites
from vnquant.stockformer.randomness import drop_levels, generator, model_keys, site_keys

SHAPE = Shape(features=6, lookback=12, horizon=3, d_model=16, heads=4, d_ff=32, layers=3)


def rows(count: int) -> torch.Tensor:
    fresh = [SHAPE.initial_row(generator(0, f"S{i}", 0, "init")) for i in range(count)]
    noise = torch.Generator().manual_seed(1)
    stacked = torch.from_numpy(np.stack(fresh))
    # Biases and gains start at 0 and 1; moved off that, a mix-up of them would show.
    moved = stacked + 0.05 * torch.randn(stacked.shape[1], generator=noise)
    used = torch.zeros(SHAPE.row, dtype=torch.bool)
    for p in SHAPE.parameters:
        used[p.offset : p.offset + p.size] = True
    return torch.where(used, moved, stacked)


def reference(row: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One model computed by nn.TransformerEncoder: [B, T, F] -> [B, 2H + 1]."""
    p = {k: v[0] for k, v in SHAPE.views(row.unsqueeze(0)).items()}
    layer = nn.TransformerEncoderLayer(
        SHAPE.d_model, SHAPE.heads, SHAPE.d_ff, 0.0, "gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, SHAPE.layers, enable_nested_tensor=False)
    with torch.no_grad():
        for i, block in enumerate(encoder.layers):
            own = {k.split(".", 2)[2]: v for k, v in p.items() if k.startswith(f"layers.{i}.")}
            if "qkv.weight" in own:
                weight, bias = own["qkv.weight"], own["qkv.bias"]
            else:
                weight = torch.cat((own["q.weight"], own["kv.weight"]), 1)
                bias = torch.cat((own["q.bias"], own["kv.bias"]))
            block.self_attn.in_proj_weight.copy_(weight.T)
            block.self_attn.in_proj_bias.copy_(bias)
            for module, name in (
                (block.self_attn.out_proj, "out"),
                (block.linear1, "ff1"),
                (block.linear2, "ff2"),
            ):
                module.weight.copy_(own[f"{name}.weight"].T)
                module.bias.copy_(own[f"{name}.bias"])
            for module, name in ((block.norm1, "norm1"), (block.norm2, "norm2")):
                module.weight.copy_(own[f"{name}.gain"])
                module.bias.copy_(own[f"{name}.bias"])
        h = x @ p["input.weight"] + p["input.bias"]
        h = h + positions(SHAPE.lookback, SHAPE.d_model, x.device, x.dtype)
        h = nn.functional.layer_norm(
            encoder(h)[:, -1], (SHAPE.d_model,), p["norm.gain"], p["norm.bias"]
        )
        return h @ p["head.weight"] + p["head.bias"]


def test_equals_torch_encoder() -> None:
    stack, x = rows(3), torch.randn(3, 5, SHAPE.lookback, SHAPE.features)
    out = forward(SHAPE, stack, x)
    for i in range(3):
        torch.testing.assert_close(out[i], reference(stack[i], x[i]), rtol=1e-4, atol=1e-5)


def test_linear_form_for_the_quantiser_is_the_same_model() -> None:
    stack, x = rows(1), torch.randn(1, 5, SHAPE.lookback, SHAPE.features)
    linear = LinearStockformer(SHAPE, stack[0]).eval()
    torch.testing.assert_close(linear(x[0]), forward(SHAPE, stack, x)[0], rtol=1e-4, atol=1e-5)


def test_models_of_a_stack_do_not_mix() -> None:
    stack, x = rows(4), torch.randn(4, 5, SHAPE.lookback, SHAPE.features)
    out = forward(SHAPE, stack, x)
    changed = stack.clone()
    changed[2] = torch.nan
    other = forward(SHAPE, changed, x)
    keep = [0, 1, 3]
    torch.testing.assert_close(other[keep], out[keep], rtol=0, atol=0)
    assert torch.isnan(other[2]).all()


def test_gradient_equals_finite_differences() -> None:
    small = Shape(features=3, lookback=4, horizon=1, d_model=8, heads=2, d_ff=8, layers=2)
    row = torch.from_numpy(small.initial_row(generator(0, "A", 0, "init"))).double()[None]
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64)
    row.requires_grad_()

    def loss(values: torch.Tensor) -> torch.Tensor:
        return forward(small, values, x).double().square().sum()

    (grad,) = torch.autograd.grad(loss(row), row)
    base, rng = row.detach(), np.random.default_rng(0)
    used = [p.offset + int(rng.integers(p.size)) for p in small.parameters]
    for i in used:
        # The head returns float32, which bounds how small a step can be resolved.
        step = torch.zeros_like(base)
        step[0, i] = 1e-3
        slope = (loss(base + step) - loss(base - step)) / 2e-3
        assert float(slope) == pytest.approx(float(grad[0, i]), rel=2e-2, abs=2e-3)


def test_dropout_belongs_to_the_model_not_to_the_stack() -> None:
    x = torch.randn(1, 5, SHAPE.lookback, SHAPE.features).expand(8, -1, -1, -1)
    names = [f"S{i}" for i in range(8)]
    keys = site_keys(
        model_keys(7, names, [0] * 8), torch.full((8,), 3, dtype=torch.int32), sites(SHAPE)
    )
    level = drop_levels(torch.full((8,), 0.2))
    stack = rows(8)
    wide = forward(SHAPE, stack, x, Drop(keys, level))
    alone = forward(SHAPE, stack[5:6], x[5:6], Drop(keys[5:6], level[5:6]))
    torch.testing.assert_close(wide[5:6], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(forward(SHAPE, stack[5:6], x[5:6]), alone, atol=1e-3)


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_row_has_a_place_for_everything(layers: int) -> None:
    shape = Shape(50, 60, 5, 128, 8, 512, layers)
    ends = [(p.offset, p.offset + p.size) for p in shape.parameters]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
    assert ends[-1][1] <= shape.row
    views = shape.views(torch.arange(float(shape.row)).unsqueeze(0))
    for p in shape.parameters:
        assert views[p.name].shape == (1, *p.shape)
        assert float(views[p.name].flatten()[0]) == p.offset
