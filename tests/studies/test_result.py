"""What a study recommends, from tables whose better half is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from vnquant.studies.definition import Study, Variant
from vnquant.studies.page import plot, to_markdown
from vnquant.studies.result import build, compared

DATES, SYMBOLS = 300, 12


def table(skill: float, seed: int = 0, skip: int = 0) -> pd.DataFrame:
    """Forecasts of the same outcomes, with as much skill as asked."""
    rng = np.random.default_rng(5)
    days = pd.bdate_range("2021-01-04", periods=DATES)
    rows = pd.MultiIndex.from_product([[f"S{i:02d}" for i in range(SYMBOLS)], days])
    out = pd.DataFrame(rows.to_list(), columns=["symbol", "date"])
    outcome = rng.normal(0, 0.02, len(out))
    noise = np.random.default_rng(seed).normal(0, 0.02, len(out))
    expected = skill * outcome + noise
    out["close"], out["fold"] = 10.0, 1
    out["mu_1"], out["sigma_1"], out["y_1"] = expected, 0.02, outcome
    out["p_up"] = 1 / (1 + np.exp(-expected / 0.01))
    return out[out["date"] >= days[skip]].reset_index(drop=True)


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "run": "0" * 12, "rank_ic": 0.01, "rank_ic_se": 0.02,
            "rank_ic_interval": [-0.03, 0.05], "accuracy": 0.5, "accuracy_interval": None,
            "ece": 0.1, "brier": 0.25, "hours": 1.0, "rivals": [], "n": 1, "dates": 1, "seed": 0,
            "snapshot": "0" * 64, "finished": "then", "device": "here", **more}  # fmt: skip


def study(**more: Any) -> Study:
    return Study(name="x", question="Is b better?", variants=(Variant(name="a"),), **more)


def test_a_better_variant_is_recommended() -> None:
    tables = {"a": table(0.0), "b": table(1.0, 1), "c": table(0.3, 2)}
    found = build(study(), [row(n) for n in tables], tables, seed=0)
    assert found["recommendation"].startswith("Change to b: its RankIC is better by 0.")
    first, b, c = found["trials"]
    assert "against_first" not in first
    assert b["against_first"]["difference"] > c["against_first"]["difference"] > 0
    assert b["against_first"]["adjusted_p"] >= b["against_first"]["p_value"]


def test_chance_changes_nothing() -> None:
    tables = {"a": table(0.0), "b": table(0.0, 1), "c": table(0.0, 2)}
    found = build(study(), [row(n) for n in tables], tables, seed=0)
    assert found["recommendation"].startswith("Keep a")


def test_of_errors_the_lower_is_better() -> None:
    tables = {"a": table(0.0), "b": table(1.0, 1)}
    found = build(study(metric="brier"), [row(n) for n in tables], tables, seed=0)
    assert found["trials"][1]["against_first"]["difference"] < 0
    assert found["recommendation"].startswith("Change to b: its Brier score")


def test_only_rows_that_both_have_are_compared() -> None:
    whole, late = table(0.5), table(0.5, skip=100)
    found = compared("rank_ic", whole, late, seed=0)
    assert found["rows"] == len(late) == (DATES - 100) * SYMBOLS
    assert found["difference"] == pytest.approx(0.0, abs=1e-12)


def test_what_failed_is_said_and_compared_with_nothing() -> None:
    bad = {"name": "b|b", "failed": "no symbol can be trained"}
    found = build(study(), [row("a"), bad], {"a": table(0.0)}, seed=0)
    assert found["recommendation"] == "Keep a: there is nothing to compare it with."
    text = to_markdown({**found, "base_digest": "0" * 64, "command": "vnquant study x"})
    assert "| b\\|b | failed: no symbol can be trained |" in text


def test_a_repeat_with_another_seed_is_no_trial() -> None:
    tables = {"a": table(0.0), "a, seed 1": table(0.0, 3), "b": table(1.0, 1)}
    plain = build(study(), [row("a"), row("b")], tables, seed=0)
    assert plain["seed_noise"] is None
    found = build(study(), [row("a"), row("b")], tables, seed=0, repeats=[row("a, seed 1")])
    (again,) = found["repeats"]
    assert found["seed_noise"] == abs(again["against_first"]["difference"]) > 0
    assert "adjusted_p" not in again["against_first"]
    assert found["trials"] == plain["trials"], "nothing is counted that was no candidate"
    text = to_markdown({**found, "base_digest": "0" * 64, "command": "vnquant study x"})
    names = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert names[:4] == ["| trial", "| a", "| a, seed 1", "| b"]
    assert f"by up to {found['seed_noise']:.4f} (repeats: 1)" in text


def test_of_several_repeats_the_largest_difference_is_the_noise() -> None:
    names = [f"a, seed {n}" for n in (1, 2, 3)]
    tables = {"a": table(0.0), **{name: table(0.0, 7 + i) for i, name in enumerate(names)}}
    found = build(study(), [row("a")], tables, seed=0, repeats=[*map(row, names)])
    gaps = [abs(r["against_first"]["difference"]) for r in found["repeats"]]
    assert found["seed_noise"] == max(gaps) > min(gaps)


def test_rows_of_a_version_that_judged_what_the_models_say_have_a_dash() -> None:
    tables = {"a": table(0.0), "b": table(0.4, 1)}
    rows = [row("a", ece_calibrated=0.0251), row("b", ece_uncalibrated=0.0434)]
    found = build(study(), rows, tables, seed=0)
    text = to_markdown({**found, "base_digest": "0" * 64, "command": "vnquant study x"})
    head, _, one, other, *_ = (line for line in text.splitlines() if line.startswith("|"))
    at = [cell.strip() for cell in head.split("|")].index("as the models say it")
    assert [line.split("|")[at].strip() for line in (one, other)] == ["-", "0.0434"]
    assert [line.split("|")[at - 1].strip() for line in (one, other)] == ["0.1000"] * 2


def test_the_page_has_every_trial_and_its_plot() -> None:
    tables = {"a": table(0.0), "b": table(0.4, 1)}
    found = build(study(), [row(n) for n in tables], tables, seed=0)
    text = to_markdown({**found, "base_digest": "0" * 64, "command": "vnquant study x"})
    assert "Is b better?" in text
    assert "+0.0100 (0.0200)" in text
    drawn = plot(found)
    assert drawn.source.startswith("data:image/svg+xml")
    assert "a +0.010; b +0.010" in drawn.alternative
