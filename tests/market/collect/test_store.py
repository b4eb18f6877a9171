"""The folder of collected prices: whole files only, one writer, one source."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from vnquant.errors import DataError, RetryableError, UsageError
from vnquant.market.collect.store import PriceStore, origin
from vnquant.market.folder import PriceFolder

ORIGIN = origin("cafef", None, dt.date(2020, 12, 31))


def test_what_is_written_is_read(two_years: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    store = PriceStore(tmp_path)
    store.write("FPT", two_years["FPT"], ORIGIN)
    stored = store.read("FPT")
    assert stored is not None
    assert stored.origin == ORIGIN
    assert_frame_equal(stored.bars, two_years["FPT"])
    assert store.read("VCB") is None


@pytest.mark.parametrize("how", ["cut", "foreign", "empty"])
def test_a_file_that_is_not_whole_or_not_ours_reads_as_none(
    how: str, two_years: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    store = PriceStore(tmp_path)
    store.write("FPT", two_years["FPT"], ORIGIN)
    path = store.path("FPT")
    if how == "foreign":
        two_years["FPT"].to_parquet(path)
    else:
        path.write_bytes(path.read_bytes()[: 1000 if how == "cut" else 0])
    assert store.read("FPT") is None


def test_bars_that_the_schema_refuses_leave_the_file_as_it_was(
    two_years: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    store = PriceStore(tmp_path)
    store.write("FPT", two_years["FPT"], ORIGIN)
    before = store.path("FPT").read_bytes()
    with pytest.raises(DataError, match="volume"):
        store.write("FPT", two_years["FPT"].assign(volume=-1.0), ORIGIN)
    assert store.path("FPT").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["FPT.parquet"]


def test_the_old_file_is_kept_and_is_no_price(
    two_years: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    store = PriceStore(tmp_path)
    assert store.keep_old("FPT", "readjusted") is None
    store.write("FPT", two_years["FPT"], ORIGIN)
    before = store.path("FPT").read_bytes()
    kept = store.keep_old("FPT", "readjusted")
    store.write("FPT", two_years["FPT"].tail(100).reset_index(drop=True), ORIGIN)
    assert kept is not None
    assert kept.read_bytes() == before
    assert len(PriceFolder(tmp_path).load(["FPT"])) == 100


def test_one_fetch_at_a_time(tmp_path: Path) -> None:
    with (
        PriceStore(tmp_path).opened(),
        pytest.raises(RetryableError, match="another fetch"),
        PriceStore(tmp_path).opened(),
    ):
        pass
    with PriceStore(tmp_path).opened():
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--into"), PriceStore(tmp_path / "file").opened():
        pass


def test_two_sources_do_not_share_a_folder(
    two_years: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    store = PriceStore(tmp_path)
    store.write("FPT", two_years["FPT"], ORIGIN)
    store.refuse_other_sources("cafef")
    with pytest.raises(UsageError, match=r"of cafef \(FPT\.parquet\), not of vndirect"):
        store.refuse_other_sources("vndirect")
    two_years["PVS"].to_parquet(tmp_path / "AAA.parquet")
    with pytest.raises(UsageError, match="somebody else"):
        store.refuse_other_sources("cafef")
