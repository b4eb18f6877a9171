"""What a folder of prices accepts, and one sentence for everything it does not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vnquant.errors import DataError, UsageError
from vnquant.market.folder import PriceFolder
from vnquant.market.schema import COLUMNS
from vnquant.market.sources import snapshot_hash

FPT_DAY = "2019-03-04"


def load(path: Path, symbols: list[str] | None = None, **dates: dt.date) -> pd.DataFrame:
    return PriceFolder(path, today=dt.date(2024, 1, 1)).load(symbols, **dates)


def refused(path: Path, *parts: str, symbols: list[str] | None = None) -> DataError:
    """The load fails with exit code 3, names the path, each of the parts, and a remedy."""
    before = {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")}
    with pytest.raises(DataError) as caught:
        load(path, symbols)
    error = caught.value
    assert error.exit_code == 3
    assert path.name in error.where
    assert error.fix
    for part in parts:
        assert part in str(error)
    assert {p: p.stat().st_mtime_ns for p in path.parent.rglob("*")} == before
    return error


def one(bars: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """FPT's bars with one value replaced on FPT_DAY."""
    fpt = bars[bars["symbol"] == "FPT"].reset_index(drop=True)
    row = int(np.flatnonzero(fpt["date"] == FPT_DAY)[0])
    if isinstance(value, str):
        fpt[column] = fpt[column].astype(object)
    fpt.loc[row, column] = value
    return fpt


# What works


@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv", "BARS.CSV"])
def test_parquet_and_csv_give_the_same_bars(market_bars, write, name):
    path = write(market_bars, name.lower()).rename(write(market_bars, name))
    found = load(path)
    pd.testing.assert_frame_equal(found, market_bars, check_exact=True)
    assert snapshot_hash(found) == snapshot_hash(market_bars)


def test_a_directory_mixes_formats_and_files_named_by_symbol(market_bars, write):
    plain = market_bars.drop(columns=["symbol", "exchange"])
    write(plain[market_bars["symbol"] == "FPT"], "prices/fpt.csv")
    write(plain[market_bars["symbol"] == "PVS"], "prices/PVS.parquet")
    folder = write(market_bars[market_bars["symbol"] == "ACV"], "prices/other.parquet").parent
    (folder / "readme.txt").write_text("not prices")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "VCB.csv").write_text("never read")
    pd.testing.assert_frame_equal(load(folder), market_bars)
    assert PriceFolder(folder).known_symbols() == {"ACV": "UPCOM", "FPT": "HOSE", "PVS": "HNX"}


def test_symbols_and_dates_select(market_bars, write):
    path = write(market_bars, "bars.parquet")
    found = load(path, ["pvs", "FPT", "FPT"], start=dt.date(2019, 3, 4), end=dt.date(2019, 3, 8))
    assert found["symbol"].unique().tolist() == ["FPT", "PVS"]
    assert found["date"].min() == pd.Timestamp("2019-03-04")
    assert found["date"].max() == pd.Timestamp("2019-03-08")


def test_any_spelling_of_symbols_and_exchanges(market_bars, write):
    loose = market_bars.assign(
        symbol=" " + market_bars["symbol"].str.lower(), exchange=market_bars["exchange"].str.title()
    )
    for name in ("a.parquet", "b.csv"):
        pd.testing.assert_frame_equal(
            load(write(loose, name), ["FPT"]),
            market_bars[market_bars["symbol"] == "FPT"].reset_index(drop=True),
        )


def test_index_rows_are_dropped_and_unknown(market_bars, write):
    index = market_bars[market_bars["symbol"] == "FPT"].assign(symbol="VNINDEX", exchange="INDEX")
    path = write(pd.concat([market_bars, index]), "bars.parquet")
    pd.testing.assert_frame_equal(load(path), market_bars)
    with pytest.raises(UsageError):
        load(path, ["VNINDEX"])


def test_value_and_change_text_may_be_missing(market_bars, write):
    found = load(write(market_bars.drop(columns=["value", "change_text"]), "bars.csv"))
    assert found.columns.tolist() == list(COLUMNS)
    assert found["value"].isna().all()
    assert found["change_text"].isna().all()


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Ho_Chi_Minh"])
def test_timestamps_are_days_in_viet_nam(market_bars, write, zone):
    dates = market_bars["date"].dt.tz_localize("Asia/Ho_Chi_Minh")
    dates = dates.dt.tz_localize(None) if zone is None else dates.dt.tz_convert(zone)
    path = write(market_bars.assign(date=dates), "bars.parquet")
    assert (load(path)["date"] == market_bars["date"]).all()


def test_a_byte_order_mark_and_windows_line_ends(market_bars, write):
    path = write(market_bars, "bars.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(load(path), market_bars)


def test_integers_and_dictionary_columns_are_fine(market_bars, write):
    coded = market_bars.assign(
        symbol=market_bars["symbol"].astype("category"),
        exchange=market_bars["exchange"].astype("category"),
        volume=market_bars["volume"].astype("int64"),
    )
    path = write(coded, "bars.parquet")
    pd.testing.assert_frame_equal(load(path), market_bars)
    assert len(load(path, ["FPT"])) == (market_bars["symbol"] == "FPT").sum()


# What does not: paths and whole files


def test_a_missing_path(tmp_path):
    refused(tmp_path / "nowhere.parquet", "does not exist")


def test_an_empty_directory(tmp_path):
    (tmp_path / "prices").mkdir()
    refused(tmp_path / "prices", "no parquet or CSV file")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "bars.xlsx").write_bytes(b"PK")
    refused(tmp_path / "bars.xlsx", "neither parquet nor CSV")


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
def test_an_empty_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    refused(tmp_path / name, "is empty")


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
def test_a_file_without_rows(market_bars, write, name):
    refused(write(market_bars.head(0), name), "no bars")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_parquet(market_bars, write, share):
    path = write(market_bars, "bars.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "cannot be read as parquet", "export it again")


def test_text_that_is_not_utf8(market_bars, write):
    path = write(market_bars.assign(change_text="tăng"), "bars.csv")
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    refused(path, "csv")
    path.write_bytes(b"symbol,exchange,date\nFPT,\xff\xfe,2019-01-02\n")
    refused(path, "UTF")


def test_a_row_with_too_few_cells(market_bars, write):
    path = write(market_bars, "bars.csv")
    path.write_text(path.read_text() + "FPT,HOSE,2020\n")
    refused(path, "cannot be read as csv")


# Columns and values


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
@pytest.mark.parametrize("column", ["date", "open", "close", "volume"])
def test_a_missing_column(market_bars, write, name, column):
    path = write(market_bars.rename(columns={column: "Other"}), name)
    refused(path, f"{column!r} is missing", "Other")


def test_a_missing_adj_close_says_what_it_is(market_bars, write):
    path = write(market_bars.drop(columns="adj_close"), "bars.csv")
    refused(path, "'adj_close' is missing", "splits, bonus shares and dividends")


def test_a_column_twice(market_bars, write):
    path = write(market_bars, "bars.csv")
    head, rest = path.read_text().split("\n", 1)
    path.write_text(head.replace("high", "open") + "\n" + rest)
    refused(path, "'open' appears twice")


def test_an_exchange_nobody_knows(market_bars, write):
    fpt = market_bars[market_bars["symbol"] == "FPT"].drop(columns=["symbol", "exchange"])
    refused(write(fpt, "ZZZ.csv"), "exchange of ZZZ is not known", "add a column exchange")


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
@pytest.mark.parametrize("text", ["n/a", "1,234.5", "12.5k", "--"])
def test_text_in_a_number(market_bars, write, name, text):
    bad = one(market_bars, "close", text)
    if name.endswith("parquet"):
        bad["close"] = bad["close"].astype(str)
    row = int(np.flatnonzero(bad["date"] == FPT_DAY)[0]) + 1
    refused(write(bad, name), "column close", repr(text), f"row {row}", "FPT", "not a number")


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("low", -3.5, "-3.5"),
        ("volume", -100.0, "-100.0"),
        ("adj_close", np.inf, "inf"),
        ("value", np.inf, "inf"),
        ("value", -1.0, "-1.0"),
    ],
)
def test_impossible_numbers(market_bars, write, name, column, value, said):
    path = write(one(market_bars, column, value), name)
    refused(path, f"column {column}", said, f"FPT {FPT_DAY}", "finite and not negative")


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
def test_a_missing_number(market_bars, write, name):
    refused(write(one(market_bars, "open", np.nan), name), "open is missing", "FPT")


@pytest.mark.parametrize("text", ["04/03/2019", "2019-13-04", "2019-02-30", "yesterday", ""])
def test_dates_that_are_none(market_bars, write, text):
    bad = one(market_bars.assign(date=market_bars["date"].dt.strftime("%Y-%m-%d")), "date", "x")
    bad["date"] = bad["date"].replace("x", text)
    refused(write(bad, "bars.csv"), "column date", text, "2021-12-31")


def test_dates_as_numbers(market_bars, write):
    numbers = market_bars["date"].dt.strftime("%Y%m%d").astype("int64")
    refused(write(market_bars.assign(date=numbers), "bars.parquet"), "int64, not dates")


def test_dates_after_today(market_bars, write):
    path = write(one(market_bars, "date", pd.Timestamp("2024-01-02")), "bars.csv")
    refused(path, "FPT 2024-01-02 lies after today (2024-01-01)")


def test_a_day_twice_in_a_file(market_bars, write):
    twice = pd.concat([market_bars, market_bars[market_bars["date"] == FPT_DAY].head(1)])
    refused(write(twice, "bars.parquet"), f"ACV {FPT_DAY} appears more than once")


def test_a_day_in_two_files(market_bars, write):
    write(market_bars, "prices/a.parquet")
    day = market_bars[(market_bars["symbol"] == "FPT") & (market_bars["date"] == FPT_DAY)]
    path = write(day, "prices/b.csv")
    refused(path.parent, f"FPT {FPT_DAY}", "a.parquet and b.csv", symbols=["FPT"])


def test_prices_in_vnd(market_bars, write):
    prices = ["open", "high", "low", "close", "adj_close"]
    bad = market_bars.copy()
    bad[prices] *= 1000
    refused(write(bad, "bars.parquet"), "median of column close", "thousand VND", "by 1000")


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_value_in_other_units(market_bars, write, factor):
    bad = market_bars.assign(value=market_bars["value"] * factor)
    refused(write(bad, "bars.parquet"), "value / volume of ACV", "value in VND")


def test_adj_close_in_vnd(market_bars, write):
    bad = market_bars.assign(adj_close=market_bars["adj_close"] * 1000)
    refused(write(bad, "bars.parquet"), "adj_close of", "like close")


@pytest.mark.parametrize("column", ["symbol", "exchange"])
def test_a_row_without_a_name(market_bars, write, column):
    bad = one(market_bars, column, None)
    refused(write(bad, "bars.parquet"), column)


def test_a_span_without_bars(market_bars, write):
    path = write(market_bars, "bars.csv")
    with pytest.raises(DataError, match="2019-01-02 and 2020-12-31"):
        load(path, start=dt.date(2021, 1, 1))


def test_an_unknown_symbol_is_a_usage_error(market_bars, write):
    with pytest.raises(UsageError, match=r"'FPTT'.*FPT") as caught:
        load(write(market_bars, "bars.csv"), ["FPTT"])
    assert caught.value.exit_code == 2


# The real file


def test_the_shared_file_as_it_is(shared_prices):
    source = PriceFolder(shared_prices)
    known = source.known_symbols()
    assert len(known) == 145
    assert "VNINDEX" not in known
    raw = source.load(["FPT", "VCB", "HPG"])
    assert raw["symbol"].unique().tolist() == ["FPT", "HPG", "VCB"]
    assert raw["date"].max() == pd.Timestamp("2023-12-29")


def test_early_bars_whose_values_are_in_thousands_still_load(shared_prices):
    # REE's values before 2007 are a thousandth; that must not make the file unusable.
    raw = PriceFolder(shared_prices).load(["REE"], end=dt.date(2006, 6, 30))
    assert len(raw) > 1000
