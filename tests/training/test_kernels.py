"""Plain and compiled kernels take the same steps; which kernels are chosen where."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.training.conftest import HISTORY, MakeStack, row_of, run_round
from vnquant.stockformer import cpu_pieces, cpu_step
from vnquant.stockformer.layout import Shape
from vnquant.training import graphs, kernels
from vnquant.training.data import ModelId
from vnquant.training.kernels import PLAIN_KERNELS, Kernels, choose_kernels, round_widths
from vnquant.training.stack import Stack

TOLERANCE = 2e-4  # of a weight; documented in docs/stacking.md
GPU = torch.device("cuda")  # only named: nothing is computed on it
SHAPE = Shape(features=50, lookback=60, horizon=5, d_model=128, heads=8, d_ff=512, layers=4)

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def compiled() -> Kernels:
    """Skips where torch.compile cannot even compile a sine: that is no fault of ours."""
    try:
        torch.compile(lambda x: x.sin() + 1.0)(torch.ones(8))
    except Exception as error:
        pytest.skip(f"torch.compile does not work here: {str(error).splitlines()[0]}")
    return kernels.compiled_kernels()


def with_kernels(plain: Stack, chosen: Kernels) -> Stack:
    stack = Stack(plain.shape, plain.models, plain._model_spec, plain.training, plain.data, chosen)
    stack.initialise()
    return stack


@pytest.fixture(scope="module")
def compiled_by_hand(compiled: Kernels) -> Kernels:
    """What `compiled` says of torch.compile holds here too."""
    return kernels.cpu_kernels()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled", "compiled_by_hand"])
def test_compiled_and_plain_take_the_same_steps(
    make_stack: MakeStack, name: str, request: pytest.FixtureRequest
) -> None:
    plain = make_stack()
    other = with_kernels(plain, request.getfixturevalue(name))
    before = plain.weights.clone()
    for stack in (plain, other):
        run_round(stack)
    torch.testing.assert_close(other.weights, plain.weights, rtol=0, atol=TOLERANCE)
    assert (plain.weights - before).abs().max() > 20 * TOLERANCE, "the steps did move something"
    for ours, theirs in zip(other.ledger, plain.ledger, strict=True):
        np.testing.assert_allclose(ours.history, theirs.history, rtol=1e-4)


@pytest.mark.slow
def test_compiled_kernels_compute_no_more_than_two_widths(
    make_stack: MakeStack, compiled: Kernels
) -> None:
    """Unequal histories: without the limit every width would be a compilation of its own."""
    plain = make_stack()
    other = with_kernels(plain, compiled)
    assert len({plain.width(i) for i in range(plain.round_steps)}) == 4
    assert len({other.width(i) for i in range(other.round_steps)}) == 2


BY_HAND = PLAIN_KERNELS._replace(gradient=partial(cpu_step.gradient, pieces=cpu_pieces.Pieces()))


def test_by_hand_a_model_is_the_same_in_any_stack(make_stack: MakeStack) -> None:
    alone, among = (with_kernels(make_stack(names), BY_HAND) for names in (("CCC",), HISTORY))
    for _ in range(3):
        run_round(alone)
        run_round(among)
    model = ModelId("CCC", 1)
    torch.testing.assert_close(row_of(among, model), row_of(alone, model), rtol=0, atol=TOLERANCE)
    assert not torch.equal(row_of(among, model), row_of(with_kernels(alone, BY_HAND), model))


def test_by_hand_the_same_stack_is_bit_identical(make_stack: MakeStack) -> None:
    one, two = (with_kernels(make_stack(), BY_HAND) for _ in range(2))
    for stack in (one, two):
        run_round(stack)
    assert torch.equal(one.weights, two.weights)


@pytest.mark.usefixtures("compiler")
def test_by_hand_is_for_float32_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert choose_kernels(SHAPE, cpu, torch.float32).gradient is not None
    assert choose_kernels(SHAPE, cpu, torch.bfloat16).gradient is None
    longer = dataclasses.replace(SHAPE, lookback=200)
    assert choose_kernels(longer, cpu, torch.float32).gradient is None


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"bin/{name}")


def test_a_step_uses_the_kernels_it_was_given(make_stack: MakeStack) -> None:
    called = []

    def counted(*args: object) -> torch.Tensor:
        called.append(len(args))
        return PLAIN_KERNELS.loss(*args)

    stack = with_kernels(make_stack(), PLAIN_KERNELS._replace(loss=counted))
    stack.train_step()
    assert len(called) == 1


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_round_widths_cover_every_model_with_the_fewest_steps(limit: int) -> None:
    steps = np.array([9, 9, 7, 4, 4, 2])
    exact = round_widths(steps, None)
    assert list(exact) == [6, 6, 5, 5, 3, 3, 3, 2, 2]
    rounded = round_widths(steps, limit)
    assert (rounded >= exact).all()
    assert len(set(rounded)) <= limit
    assert rounded.sum() == {1: 54, 2: 39, 3: 37}[limit]


@needs_triton
@pytest.mark.usefixtures("compiler")
def test_fused_kernels_are_for_bfloat16_on_a_gpu() -> None:
    chosen = choose_kernels(SHAPE, GPU, torch.bfloat16)
    assert chosen.gradient is not None
    assert chosen.graphs
    for device, dtype in ((GPU, torch.float32), (torch.device("cpu"), torch.bfloat16)):
        other = choose_kernels(SHAPE, device, dtype)
        assert other.gradient is None
        assert not other.graphs


@needs_triton
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    "change",
    [
        {"d_model": 32, "heads": 2},
        {"d_model": 96, "heads": 6},
        {"heads": 16},
        {"d_ff": 384},
        {"lookback": 200},
        {"layers": 1},
    ],
)
def test_sizes_the_fused_kernels_cannot_take_are_compiled(change: dict[str, int]) -> None:
    chosen = choose_kernels(dataclasses.replace(SHAPE, **change), GPU, torch.bfloat16)
    assert chosen.gradient is None
    assert chosen.widths == kernels.COMPILED_WIDTHS


@pytest.mark.usefixtures("compiler")
def test_without_triton_everything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    chosen = choose_kernels(SHAPE, GPU, torch.bfloat16)
    assert chosen.gradient is None
    assert chosen.widths == kernels.COMPILED_WIDTHS


def test_without_a_compiler_the_kernels_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for dtype in (torch.bfloat16, torch.float32):
        assert choose_kernels(SHAPE, GPU, dtype) == PLAIN_KERNELS


def test_no_garbage_is_collected_inside_a_capture() -> None:
    def capture() -> None:
        with graphs._no_garbage():
            assert not gc.isenabled()
            raise KeyError

    was = gc.isenabled()
    gc.enable()
    try:
        with pytest.raises(KeyError):
            capture()
        assert gc.isenabled()
    finally:
        (gc.enable if was else gc.disable)()
