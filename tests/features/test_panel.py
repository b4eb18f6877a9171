from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from vnquant.errors import DataError, UsageError
from vnquant.features.catalogue import NAMES, WARM_UP
from vnquant.features.indicators import PRICES, compute
from vnquant.features.panel import Panel, build_panel

MakeBars = Callable[..., pd.DataFrame]
MakePanel = Callable[..., Panel]


def days(frame: pd.DataFrame) -> np.ndarray:
    return np.unique(frame["date"].to_numpy().astype("datetime64[D]"))


def assert_same(a: Panel, b: Panel) -> None:
    for field in fields(Panel):
        left, right = getattr(a, field.name), getattr(b, field.name)
        np.testing.assert_array_equal(left, right, err_msg=field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name


@pytest.fixture(scope="module")
def two_segments(make_bars: MakeBars) -> pd.DataFrame:
    return make_bars(240, breaks=[100])


def test_rows_follow_the_bars(make_bars: MakeBars):
    a, b = make_bars(100, symbol="AAA"), make_bars(130, symbol="BBB", seed=1)
    clean = pd.concat([a, b], ignore_index=True)
    panel = build_panel(clean, days(clean), 5)
    assert panel.symbols == ("AAA", "BBB")
    assert panel.exchanges == ("HOSE", "HOSE")
    assert panel.offsets.tolist() == [0, 100, 230]
    assert panel.rows(1) == slice(100, 230)
    assert panel.features.shape == (230, 50)
    assert panel.targets.shape == (230, 5)
    assert panel.horizon == 5
    np.testing.assert_array_equal(panel.features[100:], compute(b))
    np.testing.assert_array_equal(panel.close, clean["close"])
    np.testing.assert_array_equal(panel.calendar[panel.session], panel.dates)
    kinds = {f.name: getattr(panel, f.name).dtype for f in fields(Panel)[2:-1]}
    assert kinds == {
        "features": np.float32, "targets": np.float32, "dates": "datetime64[D]",
        "session": np.int32, "calendar": "datetime64[D]", "close": np.float64,
        "segment": np.int32, "offsets": np.int64,
    }  # fmt: skip


@pytest.mark.parametrize("horizon", [1, 5, 130])
def test_targets_are_the_next_daily_returns_of_the_same_segment(
    two_segments: pd.DataFrame, horizon: int
):
    panel = build_panel(two_segments, days(two_segments), horizon)
    close = two_segments["adj_close"].to_numpy()
    for row in [0, 50, 93, 94, 95, 98, 99, 100, 130, 233, 234, 238, 239]:
        last = 99 if row < 100 else 239
        expected = [
            np.log(close[row + h + 1] / close[row + h]) if row + h + 1 <= last else np.nan
            for h in range(horizon)
        ]
        np.testing.assert_allclose(panel.targets[row], expected, rtol=1e-5, atol=1e-9)


def test_the_first_target_is_the_next_session_s_return(make_panel: MakePanel):
    panel = make_panel([120])
    one = panel.features[:, NAMES.index("return_1")]
    np.testing.assert_allclose(panel.targets[:-1, 0], one[1:], atol=1e-7)


def test_segments_do_not_leak_into_each_other(two_segments: pd.DataFrame):
    calendar = days(two_segments)
    before = build_panel(two_segments, calendar, 5)
    for part, other in ((slice(0, 100), slice(100, None)), (slice(100, None), slice(0, 100))):
        changed = two_segments.copy()
        rows = changed.index[part]
        rng = np.random.default_rng(3)
        for name in PRICES:
            changed.loc[rows, name] *= np.exp(rng.normal(0.0, 1.0, len(rows)))
        changed.loc[rows, "volume"] = rng.integers(1, 10**8, len(rows)).astype(float)
        after = build_panel(changed, calendar, 5)
        np.testing.assert_array_equal(before.features[other], after.features[other])
        np.testing.assert_array_equal(before.targets[other], after.targets[other])
        assert not np.array_equal(before.targets[part], after.targets[part], equal_nan=True)


def test_each_segment_warms_up_again(two_segments: pd.DataFrame):
    panel = build_panel(two_segments, days(two_segments), 5)
    complete = np.isfinite(panel.features).all(axis=1)
    age = np.r_[np.arange(100), np.arange(140)]
    np.testing.assert_array_equal(complete, age >= WARM_UP)


def test_symbols_do_not_leak_into_each_other(make_bars: MakeBars):
    a, b = make_bars(120, symbol="AAA"), make_bars(120, symbol="BBB", seed=1)
    calendar = days(a)
    both = build_panel(pd.concat([a, b], ignore_index=True), calendar, 5)
    alone = build_panel(b, calendar, 5)
    np.testing.assert_array_equal(both.features[120:], alone.features)
    np.testing.assert_array_equal(both.targets[120:], alone.targets)


def test_a_step_that_was_taken_back_is_nobodys_outcome_and_stays_in_the_features(
    make_bars: MakeBars,
):
    frame = make_bars(200)
    doubted = frame.assign(false_step=np.arange(200) == 150)
    plain, found = (build_panel(f, days(frame), 5) for f in (frame, doubted))
    np.testing.assert_array_equal(found.features, plain.features)
    void = np.isnan(found.targets) & np.isfinite(plain.targets)
    rows, ahead = np.nonzero(void)
    assert list(zip(rows.tolist(), ahead.tolist(), strict=True)) == [
        (150 - 1 - h, h) for h in reversed(range(5))
    ]
    known = ~void
    np.testing.assert_array_equal(found.targets[known], plain.targets[known])


def test_appending_bars_changes_no_earlier_row(make_bars: MakeBars):
    frame = make_bars(200)
    whole = build_panel(frame, days(frame), 5)
    start = build_panel(frame.iloc[:150], days(frame), 5)
    np.testing.assert_array_equal(whole.features[:150], start.features)
    np.testing.assert_array_equal(whole.targets[:145], start.targets[:145])
    assert np.isnan(start.targets[145:]).any(axis=1).all()


def test_a_saved_panel_comes_back(make_panel: MakePanel, tmp_path: Path):
    panel = make_panel([150, 90, 1], breaks=[[80], [], []], drop=0.05)
    panel.save(tmp_path / "some.panel")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "some.panel.json",
        "some.panel.safetensors",
    ]
    assert_same(Panel.load(tmp_path / "some.panel"), panel)


def test_saving_twice_gives_the_same_bytes(make_panel: MakePanel, tmp_path: Path):
    panel = make_panel([100])
    panel.save(tmp_path / "a")
    panel.save(tmp_path / "b")
    for kind in ("json", "safetensors"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def rewrite(path: Path, name: str, value: np.ndarray) -> None:
    """Put another array in and describe it faithfully, so that only its meaning is wrong."""
    arrays = load_file(path.with_suffix(".safetensors"))
    arrays[name] = value
    save_file(arrays, path.with_suffix(".safetensors"))
    meta = json.loads(path.with_suffix(".json").read_text())
    meta["shapes"][name] = list(value.shape)
    path.with_suffix(".json").write_text(json.dumps(meta))


BAD_ARRAYS = {
    "features": np.zeros((180, 49), np.float32),
    "targets": np.zeros((179, 5), np.float32),
    "dates": np.zeros(180, np.int64),
    "session": np.full(180, 10_000, np.int32),
    "close": np.zeros(3, np.float64),
    "segment": np.zeros(0, np.int32),
    "offsets": np.array([0, 200, 180], np.int64),
    "calendar": np.zeros(2, np.int64),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_do_not_fit_are_refused(make_panel: MakePanel, tmp_path: Path, name: str):
    path = tmp_path / "panel"
    make_panel([100, 80]).save(path)
    rewrite(path, name, BAD_ARRAYS[name])
    with pytest.raises(DataError, match=r"panel\.safetensors"):
        Panel.load(path)


BAD_META = [
    {"features": ["other"] * 50},
    {"format": 2},
    {"symbols": ["S00"]},
    {"symbols": None},
    {"shapes": {}},
    {"shapes": None},
]


@pytest.mark.parametrize("change", BAD_META, ids=str)
def test_a_description_that_does_not_fit_is_refused(
    make_panel: MakePanel, tmp_path: Path, change: dict[str, object]
):
    path = tmp_path / "panel"
    make_panel([100, 80]).save(path)
    file = path.with_suffix(".json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError):
        Panel.load(path)


def test_damaged_and_missing_files_are_refused(make_panel: MakePanel, tmp_path: Path):
    path = tmp_path / "panel"
    with pytest.raises(DataError, match="missing"):
        Panel.load(path)
    make_panel([100]).save(path)
    file = path.with_suffix(".safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        Panel.load(path)
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Panel.load(path)


def swapped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[[1, 0, *range(2, len(frame))]].reset_index(drop=True)


def scattered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(symbol=np.where(np.arange(len(frame)) % 50 < 25, "AAA", "BBB"))


BAD_BARS = {
    "does not follow": swapped,
    "not together": scattered,
    "not a single bar": lambda f: f.iloc[:0],
    "segment are missing": lambda f: f.drop(columns="segment"),
    "not a session": lambda f: f.assign(date=f["date"] + pd.Timedelta(days=400)),
    "AAA from 2015-01-05": lambda f: f.assign(adj_low=0.0),
}


@pytest.mark.parametrize("message", BAD_BARS)
def test_bars_that_are_not_clean_are_refused(make_bars: MakeBars, message: str):
    frame = make_bars(100)
    with pytest.raises(DataError, match=message):
        build_panel(BAD_BARS[message](frame), days(frame), 5)


def test_an_unsorted_calendar_is_refused(make_bars: MakeBars):
    frame = make_bars(100)
    with pytest.raises(DataError, match="calendar"):
        build_panel(frame, days(frame)[::-1], 5)


def test_a_horizon_below_one_is_refused(make_bars: MakeBars):
    frame = make_bars(100)
    with pytest.raises(UsageError, match="horizon"):
        build_panel(frame, days(frame), 0)
