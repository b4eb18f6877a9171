"""How GPUs are shared among teams; that they train the same is shown in tests/gpu."""

from __future__ import annotations

import pytest
import torch

from vnquant.accelerators import cuda
from vnquant.errors import UsageError
from vnquant.stages.teams import Place
from vnquant.stages.train import MODELS_PER_GPU, share_gpus


def test_each_gpu_gets_a_team_and_an_equal_part_of_the_cpus() -> None:
    places = share_gpus(["0", "1"], range(16), None, 306)
    assert places == [Place(tuple(range(8)), "0"), Place(tuple(range(8, 16)), "1")]


def test_more_gpus_than_cpus_share_what_there_is() -> None:
    assert [p.cpus for p in share_gpus(["0", "1", "2"], [4], 3, 9)] == [(4,)] * 3


def test_a_small_fleet_stays_on_one_gpu_unless_asked_for_more() -> None:
    few = 2 * MODELS_PER_GPU - 1
    assert share_gpus(["0", "1"], range(16), None, few) == []
    assert len(share_gpus(["0", "1"], range(16), None, few + 1)) == 2
    assert len(share_gpus(["0", "1"], range(16), 2, few)) == 2


def test_one_gpu_needs_no_team() -> None:
    assert share_gpus(["0"], range(16), None, 306) == []
    assert share_gpus(["0", "1"], range(16), 1, 306) == []


def test_more_teams_than_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="3 teams need 3 GPUs, and 2 can be seen"):
        share_gpus(["0", "1"], range(16), 3, 306)


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [(None, 2, ["0", "1"]), ("2, 3", 2, ["2", "3"]), ("GPU-a,GPU-b", 1, ["GPU-a"]), ("", 1, ["0"])],
)
def test_gpus_keep_the_names_they_were_given(
    monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, names: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert cuda.visible() == names
