"""A run with features of the market: the index is part of the data, and of what identifies it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.conftest import SPEC, context
from vnquant.errors import DataError
from vnquant.features.catalogue import names_of
from vnquant.inference.deployed import open_run
from vnquant.market.sources import snapshot_hash
from vnquant.stages import run_stage, run_stages
from vnquant.stockformer.files import load_model

V2 = SPEC.model_copy(
    update={
        "features": SPEC.features.model_copy(update={"name": "v2"}),
        "data": SPEC.data.model_copy(update={"source": "folder"}),
    }
)


def index(raw: pd.DataFrame) -> pd.DataFrame:
    dates = np.unique(raw["date"].to_numpy())
    level = 1000.0 * np.exp(np.cumsum(np.random.default_rng(2).normal(0, 0.01, len(dates))))
    rows = {"symbol": "VNINDEX", "exchange": "INDEX", "date": dates, "volume": 0.0}
    prices = dict.fromkeys(("open", "high", "low", "close", "adj_close"), level)
    return pd.DataFrame({**rows, **prices})


@pytest.fixture
def prices(raw: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "prices.parquet"
    pd.concat([raw, index(raw)], ignore_index=True).to_parquet(path)
    return path


def test_such_a_run_trains_judges_and_forecasts(prices: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", V2, prices=prices)
    run_stages(ctx, ["evaluate"])
    assert ctx.panel.names == names_of("v2")
    model = load_model(ctx.stage("train") / "models" / "FPT.m0.safetensors")
    assert model.shape.features == 60
    ready = open_run(ctx.workspace, ctx.spec.run_id)
    own, _ = ready.forecast(["FPT"], None)
    fresh, _ = ready.forecast(["FPT"], prices)
    pd.testing.assert_frame_equal(own, fresh)


def test_another_index_is_another_snapshot(prices: Path, raw: pd.DataFrame, tmp_path: Path) -> None:
    ctx = context(tmp_path / "w", V2, prices=prices)
    run_stage(ctx, "ingest")
    found = ctx.marker("ingest")["snapshot"]
    levels = index(raw)[["date", "close"]]
    assert found == snapshot_hash(raw, levels) != snapshot_hash(raw)
    levels.loc[5, "close"] += 0.01
    assert snapshot_hash(raw, levels) != found


def test_without_the_index_the_run_says_what_is_missing(raw: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "shares.parquet"
    raw.to_parquet(path)
    with pytest.raises(DataError, match="the features v2 need VNINDEX"):
        run_stage(context(tmp_path / "w", V2, prices=path), "ingest")
