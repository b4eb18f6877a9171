"""A search: towards the lowest validation loss, and nothing lost when it is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vnquant.spec import RunSpec
from vnquant.studies import search
from vnquant.studies.definition import Search, spec_of
from vnquant.studies.search import Proposal

pytest.importorskip("optuna", reason="the extra `study` is not installed")

SEARCH = Search.model_validate(
    {
        "parameters": [
            {"field": "training.learning_rate", "low": 1e-5, "high": 1e-2, "log": True},
            {"field": "windows.lookback", "choices": [10, 20]},
        ],
        "trials": 5,
    }
)


class Stop(Exception):
    """Stands for a kill: nothing of the search's own code runs after it."""


def test_a_search_loses_no_finished_trial(tmp_path: Path) -> None:
    done: list[str] = []

    def attempt(proposed: list[Proposal]) -> list[dict[str, Any]]:
        rows = []
        for name, overrides in proposed:
            if name not in done and len(done) == stop_at:
                raise Stop
            done.extend([name] if name not in done else [])
            rate = overrides["training"]["learning_rate"]
            rows.append({"name": name, "validation_loss": None if rate > 5e-3 else rate})
        return rows

    stop_at = 3
    with pytest.raises(Stop):
        search.carry_out(tmp_path / "a", SEARCH, attempt)
    first = list(done)
    stop_at = 99
    found = search.carry_out(tmp_path / "a", SEARCH, attempt)
    assert [proposal.name for proposal, _ in found][:3] == first
    assert [proposal.name for proposal, _ in found] == [row["name"] for _, row in found]
    assert len(found) == 5
    again = search.carry_out(tmp_path / "a", SEARCH, attempt)
    assert again == found
    assert len(done) == 5, "the one under way was proposed again, not another"
    undisturbed = search.carry_out(tmp_path / "b", SEARCH, attempt)
    assert undisturbed == found


def test_values_reach_the_spec_several_at_a_time(base: RunSpec, tmp_path: Path) -> None:
    seen: list[RunSpec] = []
    sizes: list[int] = []

    def attempt(proposed: list[Proposal]) -> list[dict[str, Any]]:
        seen.extend(spec_of(base, overrides, name) for name, overrides in proposed)
        sizes.append(len(proposed))
        return [{"name": name, "validation_loss": 0.0} for name, _ in proposed]

    search.carry_out(tmp_path, SEARCH, attempt, width=2)
    assert sizes == [0, 2, 2, 1]
    assert len({s.training.learning_rate for s in seen}) == 5
    assert {s.windows.lookback for s in seen} <= {10, 20}


def test_it_goes_where_the_loss_is_low(tmp_path: Path) -> None:
    """Towards low losses, whatever else the rows say: 30 trials of which the later are lower."""
    field = {"field": "training.weight_decay", "low": 0.0, "high": 1.0}
    many = Search.model_validate({"parameters": [field], "trials": 30})

    def attempt(proposed: list[Proposal]) -> list[dict[str, Any]]:
        values = [p.overrides["training"]["weight_decay"] for p in proposed]
        return [{"validation_loss": v, "rank_ic": v, "accuracy": v} for v in values]

    losses = [row["validation_loss"] for _, row in search.carry_out(tmp_path, many, attempt)]
    assert sum(losses[15:]) / 15 < 0.5 * sum(losses[:10]) / 10


def test_the_best_has_the_lowest_loss() -> None:
    rows = [("a", 1.2), ("b", None), ("c", 0.9), ("d", 0.9)]
    found = [(Proposal(name, {}), {"validation_loss": loss}) for name, loss in rows]
    chosen = search.best(found)
    assert chosen is not None
    assert chosen.name == "c"
    assert search.best(found[1:2]) is None
    assert search.best([]) is None
