"""What the words of `vnquant train` come to, without training anything."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from vnquant.cli import cli
from vnquant.cli_plan import HALF_LIFE, LEAST_POOLED, plan
from vnquant.errors import UsageError
from vnquant.market.sources import open_source
from vnquant.spec import POOLED, RunSpec

LEFT_OPEN = dict.fromkeys(("prices", "universe", "start", "end", "validation_start", "test_start"))


def planned(count: int, **words: object) -> RunSpec:
    symbols = sorted(open_source("synthetic", None).known_symbols())[:count]
    assert len(symbols) == count
    return plan(**{**LEFT_OPEN, "symbols": symbols, "preset": "small", **words}).spec  # type: ignore[arg-type]


def test_a_cross_section_is_pooled_and_a_few_symbols_are_not() -> None:
    assert planned(LEAST_POOLED).pretrain == POOLED
    assert planned(LEAST_POOLED - 1).pretrain is None
    assert planned(LEAST_POOLED - 1, recipe="pooled").pretrain == POOLED
    assert planned(LEAST_POOLED, recipe="per-symbol").pretrain is None


def test_words_about_training_mean_the_phase_that_there_is() -> None:
    words = {"epochs": 3, "batch_size": 64, "learning_rate": 1e-3, "patience": 0, "seed": 5}
    pooled, own = planned(LEAST_POOLED, **words), planned(2, **words)
    assert pooled.pretrain is not None
    for phase in (pooled.pretrain, own.training):
        assert (phase.epochs, phase.batch_size, phase.patience) == (3, 64, None)
        assert phase.learning_rate == 1e-3
    assert pooled.training.seed == own.training.seed == 5
    assert pooled.training.epochs == planned(2).training.epochs, "never used, so left as it is"


def test_a_window_is_as_long_as_asked_for() -> None:
    assert planned(2).windows.lookback == 60
    assert planned(2, lookback=20).windows.lookback == 20


def test_inputs_fade_in_the_pooled_recipe_unless_told_otherwise() -> None:
    assert planned(LEAST_POOLED).windows.half_life == HALF_LIFE
    assert planned(2).windows.half_life is None
    assert planned(LEAST_POOLED, half_life=0.0).windows.half_life is None
    assert planned(2, half_life=5.0).windows.half_life == 5
    words = CliRunner().invoke(cli, ["train", "--help"]).output
    assert f"[pooled: {HALF_LIFE:g};" in " ".join(words.split())


def test_an_unknown_symbol_is_named() -> None:
    with pytest.raises(UsageError, match="FTP"):
        planned(0, symbols=["FTP"])
