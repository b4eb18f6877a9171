"""Folding an embedding into a bias changes no output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.conftest import FEATURES, HORIZON, LOOKBACK, MODEL
from vnquant.spec import RunSpec
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.model import forward
from vnquant.training.embedding import NO_EMBEDDING, Embedding, values_of

EMBEDDING = Embedding(("HOSE", "HNX", "UPCOM"), {"AAA": "HNX", "BBB": "HOSE"})


def shape(more: int) -> Shape:
    return Shape.of(MODEL, 0, features=FEATURES + more, lookback=LOOKBACK, horizon=HORIZON)


def test_a_symbols_columns_mark_its_value() -> None:
    np.testing.assert_array_equal(EMBEDDING.columns("AAA"), [0.0, 1.0, 0.0])
    assert NO_EMBEDDING.columns("AAA").shape == (0,)


@pytest.mark.parametrize("symbol", ["AAA", "BBB"])
def test_folded_it_says_the_same(symbol: str) -> None:
    pooled, plain = shape(3), shape(0)
    rng = np.random.default_rng(0)
    row = torch.from_numpy(rng.standard_normal(pooled.row).astype(np.float32) * 0.2)
    x = torch.from_numpy(rng.standard_normal((1, 4, LOOKBACK, FEATURES)).astype(np.float32))
    marks = torch.from_numpy(EMBEDDING.columns(symbol)).expand(1, 4, LOOKBACK, 3)
    expected = forward(pooled, row.unsqueeze(0), torch.cat([x, marks], dim=3))
    folded = EMBEDDING.folded(pooled, row, symbol)
    assert folded.shape == (plain.row,)
    torch.testing.assert_close(forward(plain, folded.unsqueeze(0), x), expected)
    other = EMBEDDING.folded(pooled, row, "BBB" if symbol == "AAA" else "AAA")
    assert not torch.allclose(forward(plain, other.unsqueeze(0), x), expected, atol=1e-3)


def test_without_an_embedding_weights_stay_as_they_are() -> None:
    row = torch.arange(shape(0).row, dtype=torch.float32)
    assert NO_EMBEDDING.folded(shape(0), row, "AAA") is row


@pytest.mark.parametrize(
    ("embedding", "expected"),
    [("none", ()), ("exchange", ("HOSE", "HNX", "UPCOM")), ("symbol", ("FPT", "VCB"))],
)
def test_values_of_a_spec(embedding: str, expected: tuple[str, ...]) -> None:
    windows = {"validation_start": "2021-01-01", "test_start": "2022-01-01"}
    pretrain = {"embedding": embedding}
    spec = RunSpec(symbols=("VCB", "FPT"), windows=windows, pretrain=pretrain)
    assert values_of(spec) == expected
    assert values_of(spec.model_copy(update={"pretrain": None})) == ()
