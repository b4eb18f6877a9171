"""A base spec with folds, small enough for a trial to take seconds."""

from __future__ import annotations

import pytest

from vnquant.spec import MemberSpec, ModelSpec, RunSpec, WalkForwardSpec
from vnquant.studies.definition import Study

FOLDS = (
    {"validation_start": "2020-06-01", "test_start": "2021-06-01", "test_end": "2022-06-01"},
    {"validation_start": "2021-06-01", "test_start": "2022-06-01"},
)


@pytest.fixture(scope="session")
def base() -> RunSpec:
    return RunSpec(
        symbols=("FPT", "VCB", "HPG"),
        data={"start": "2018-01-01"},
        windows={"validation_start": "2021-06-01", "test_start": "2022-06-01"},
        model=ModelSpec(d_model=16, heads=2, d_ff=32, members=(MemberSpec(layers=1, dropout=0.1),)),
        training={"epochs": 1, "patience": None},
        walk_forward=WalkForwardSpec(folds=FOLDS),
    )


@pytest.fixture(scope="session")
def study() -> Study:
    return Study.model_validate(
        {
            "name": "rates",
            "question": "Which rate?",
            "variants": [
                {"name": "as given"},
                {"name": "low", "overrides": {"training": {"learning_rate": 1e-4}}},
                {"name": "impossible", "overrides": {"training": {"min_train_windows": 100_000}}},
            ],
        }
    )
