"""Measure how far the Triton kernels are from autograd; prints one JSON line. Also for a GPU."""

from __future__ import annotations

import json

import torch

from tests.stockformer import cases
from tests.stockformer.cases import error
from vnquant.stockformer import fused
from vnquant.stockformer.model import forward
from vnquant.training import optimizer, triton_adamw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Case(cases.Case):
    """On the GPU where there is one."""

    def __init__(self, *sizes: int, **more: int) -> None:
        super().__init__(*sizes, **more, device=DEVICE)

    def fused(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return fused.gradient(self.shape, self.rows, self.x.to(dtype), self.drop, self.loss)


def compare(case: Case) -> dict[str, float]:
    loss, true = case.plain(torch.float32)
    found_loss, found = case.fused(torch.float32)
    outputs = fused.outputs(case.shape, case.rows, case.x)
    return cases.gradient_errors(case, found, true) | {
        "loss": float((loss - found_loss).abs().max()),
        "outputs": float((outputs - forward(case.shape, case.rows, case.x)).abs().max()),
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
