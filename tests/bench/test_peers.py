"""The peers train what we train: same function, same update; the report survives their absence."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from benchmarks import peer_steps, peers
from benchmarks.steps import plain_step
from vnquant.spec import MemberSpec, ModelSpec

TINY = ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=2, dropout=0.0),))


def test_the_mapped_step_updates_as_the_loop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[torch.Tensor]] = []
    adamw = torch.optim.AdamW

    def remember(parameters: Iterable[torch.Tensor], **settings: float) -> torch.optim.AdamW:
        given.append(list(parameters))
        return adamw(given[-1], **settings)

    monkeypatch.setattr(torch.optim, "AdamW", remember)
    for make in (plain_step, peer_steps.vmap_step):
        torch.manual_seed(0)  # both draw weights first, then windows, then targets
        make(TINY, 2, "cpu", torch.float32)()
    first, second, mapped = given
    for i, own in enumerate((first, second)):
        for one, all_of_them in zip(own, mapped, strict=True):
            # Softmax does not see the key part of the projection's bias: rounding noise only.
            seen = torch.ones_like(one, dtype=torch.bool)
            if one.shape == (3 * TINY.d_model,):
                seen[TINY.d_model : 2 * TINY.d_model] = False
            torch.testing.assert_close(one[seen], all_of_them[i][seen], rtol=1e-4, atol=1e-5)


def test_a_peer_that_cannot_run_is_named_and_the_others_go_on() -> None:
    def broken() -> peers.Step:
        raise RuntimeError("no such kernel\nand more")

    steps, skipped = peers.prepare({peers.OURS: (1, lambda: lambda: None), "other": (1, broken)})
    assert list(steps) == [peers.OURS]
    assert skipped == {"other": "RuntimeError: no such kernel"}


def test_an_absent_library_is_a_reason_not_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_steps.importlib.util, "find_spec", lambda name: None)
    beside = peers.context(TINY, "cpu", 0.001, steps=2)
    assert set(beside["skipped"]) == {"neuralforecast", "LightGBM"}
    assert beside["found"] == {"ours, s per symbol": 6.2}
