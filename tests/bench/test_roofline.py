"""Operations counted from shapes against those that torch counts while it computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.roofline import OPTIMISER_BYTES, Count, count, shape_of
from vnquant.spec import MemberSpec, ModelSpec
from vnquant.stockformer.model import forward

BATCH = 3


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_operations_are_those_that_torch_counts(layers: int) -> None:
    spec = ModelSpec(d_model=32, heads=4, d_ff=64, members=(MemberSpec(layers=layers, dropout=0),))
    shape = shape_of(spec, 0)
    rows = torch.randn(1, shape.row, requires_grad=True)
    x = torch.randn(1, BATCH, shape.lookback, shape.features)
    # The plain backend alone: fused ones compute scores again in the backward pass.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        forward(shape, rows, x).sum().backward()
    assert count(shape, BATCH, 4).operations == counted.get_total_flops()


def test_parameters_cost_the_same_whatever_the_batch() -> None:
    shape = shape_of(ModelSpec(), 0)
    one, two, three = (count(shape, b, 4).bytes for b in (1, 2, 3))
    own = sum(p.size for p in shape.parameters) * (OPTIMISER_BYTES + 8)
    assert two - one == three - two
    assert one - (two - one) == own


def test_the_floor_is_the_slower_of_both() -> None:
    counted = Count(operations=100, bytes=30)
    assert counted.floor(10.0, 10.0) == 10.0
    assert counted.floor(10.0, 1.0) == 30.0
