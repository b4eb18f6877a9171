from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vnquant.errors import DataError, UsageError
from vnquant.features.panel import Panel
from vnquant.features.windows import (
    CLIP,
    Scaler,
    Windows,
    covered_rows,
    faded,
    fit_scaler,
    gather,
    pooled_scalers,
    split,
)
from vnquant.spec import WindowSpec

MakePanel = Callable[..., Panel]
PARTS = ("train", "validation", "test")


@st.composite
def specs(draw: st.DrawFn) -> WindowSpec:
    horizon = draw(st.integers(1, 8))
    first = draw(st.integers(60, 340))
    start = dt.date(2015, 1, 5)
    return WindowSpec(
        lookback=draw(st.integers(2, 40)),
        horizon=horizon,
        purge=horizon + draw(st.integers(0, 6)),
        embargo=draw(st.integers(0, 12)),
        validation_start=start + dt.timedelta(days=first),
        test_start=start + dt.timedelta(days=first + draw(st.integers(1, 120))),
    )


lengths = st.lists(st.integers(1, 320), min_size=1, max_size=3)
cuts = st.lists(st.lists(st.integers(1, 319), max_size=2), min_size=3, max_size=3)


@st.composite
def cases(draw: st.DrawFn) -> tuple[WindowSpec, dict[str, object]]:
    """A spec and the arguments of a panel: several lengths, segments and missing sessions."""
    spec = draw(specs())
    return spec, {
        "lengths": draw(lengths),
        "breaks": draw(cuts),
        "drop": draw(st.sampled_from([0.0, 0.02, 0.2])),
        "seed": draw(st.integers(0, 10**6)),
        "horizon": spec.horizon,
    }


QUICK = settings(max_examples=60, deadline=None)


def part_of(panel: Panel, spec: WindowSpec, row: int) -> str | None:
    """Which part a row belongs to, word for word from the rules, one row at a time."""
    features = panel.features[max(row - spec.lookback + 1, 0) : row + 1]
    covered = panel.segment[max(row - spec.lookback + 1, 0) : row + 1]
    symbol = int(np.searchsorted(panel.offsets, row, side="right")) - 1
    if row - spec.lookback + 1 < panel.offsets[symbol] or len(set(covered.tolist())) > 1:
        return None
    if not np.isfinite(features).all() or not np.isfinite(panel.targets[row]).all():
        return None
    vb = int((panel.calendar < np.datetime64(spec.validation_start)).sum())
    tb = int((panel.calendar < np.datetime64(spec.test_start)).sum())
    end, target = int(panel.session[row]), int(panel.session[row + spec.horizon])
    if end <= vb - 1 - spec.purge and target < vb:
        return "train"
    if vb + spec.embargo <= end <= tb - 1 - spec.purge and target < tb:
        return "validation"
    return "test" if end >= tb + spec.embargo else None


@QUICK
@given(case=cases())
def test_parts_are_those_of_the_rules_taken_row_by_row(make_panel: MakePanel, case):
    spec, arguments = case
    panel = make_panel(**arguments)
    for i, windows in enumerate(split(panel, spec)):
        expected: dict[str | None, list[int]] = {p: [] for p in (*PARTS, None)}
        for row in range(panel.offsets[i], panel.offsets[i + 1]):
            expected[part_of(panel, spec, row)].append(row)
        for part in PARTS:
            assert getattr(windows, part).tolist() == expected[part]


@QUICK
@given(case=cases())
def test_parts_keep_their_distance(make_panel: MakePanel, case):
    spec, arguments = case
    panel = make_panel(**arguments)
    vb, tb = np.searchsorted(
        panel.calendar, [np.datetime64(spec.validation_start), np.datetime64(spec.test_start)]
    )
    found = split(panel, spec)
    assert [w.symbol for w in found] == list(panel.symbols)
    for i, w in enumerate(found):
        ends = np.concatenate([w.train, w.validation, w.test])
        assert ends.dtype == np.int64
        assert (np.diff(ends) > 0).all()  # ascending and disjoint, part after part
        assert ((ends >= panel.offsets[i]) & (ends < panel.offsets[i + 1])).all()
        assert np.isfinite(panel.targets[ends]).all()
        # No target of an earlier part reaches the next part's start.
        assert (panel.session[w.train + spec.horizon] < vb).all()
        assert (panel.session[w.validation + spec.horizon] < tb).all()
        assert (panel.session[w.validation] >= vb).all()
        assert (panel.session[w.test] >= tb).all()
        for end in [*ends.tolist(), *([] if w.latest is None else [w.latest])]:
            covered = slice(end - spec.lookback + 1, end + 1)
            assert end - spec.lookback + 1 >= panel.offsets[i]
            assert len(set(panel.segment[covered].tolist())) == 1
            assert np.isfinite(panel.features[covered]).all()
        if len(ends):
            assert w.latest is not None
            assert w.latest >= ends[-1]


def test_a_full_history_fills_every_part(make_panel: MakePanel, spec: WindowSpec):
    """The counts of one plain case, worked out by hand."""
    panel = make_panel([260])
    (w,) = split(panel, spec)
    vb, tb = 150, 193  # business days from 2015-01-05 to 2015-08-03 and 2015-10-01
    assert panel.calendar[vb] == np.datetime64("2015-08-03")
    assert panel.calendar[tb] == np.datetime64("2015-10-01")
    # The first complete row is 69, so the first window of 8 ends on row 76.
    assert w.train.tolist() == list(range(76, vb - 5))
    assert w.validation.tolist() == list(range(vb + 5, tb - 5))
    assert w.test.tolist() == list(range(tb + 5, 255))
    assert w.latest == 259
    assert w.lookback == 8


def test_a_target_delayed_by_missing_sessions_does_not_reach_the_next_part(
    make_panel: MakePanel, spec: WindowSpec
):
    """Without session 147, the fifth session after 144 is 150, where validation starts."""
    panel = make_panel([260])
    kept = np.delete(np.arange(260), [147, 190])
    names = ("features", "targets", "dates", "session", "close", "segment")
    holed = replace(
        panel,
        **{name: getattr(panel, name)[kept] for name in names},
        offsets=np.array([0, 258]),
    )
    (w,) = split(holed, spec)
    assert holed.session[w.train[-1]] == 143
    assert holed.session[w.validation[-1]] == 186  # 187 + 5 rows is 193, where the test starts


def test_a_start_between_sessions_means_the_next_session(make_panel: MakePanel, spec: WindowSpec):
    panel = make_panel([260])
    saturday = spec.model_copy(update={"validation_start": dt.date(2015, 8, 1)})
    (a,), (b,) = split(panel, spec), split(panel, saturday)
    np.testing.assert_array_equal(a.train, b.train)
    np.testing.assert_array_equal(a.validation, b.validation)


def test_a_test_start_after_the_data_leaves_the_test_part_empty(
    make_panel: MakePanel, spec: WindowSpec
):
    (w,) = split(make_panel([260]), spec.model_copy(update={"test_start": dt.date(2030, 1, 1)}))
    assert len(w.test) == 0
    assert w.validation[-1] == 254


def test_latest_is_none_without_a_full_lookback(make_panel: MakePanel, spec: WindowSpec):
    short, just = split(make_panel([76, 77]), spec)
    assert short.latest is None
    assert just.latest == 76 + 76


def test_an_unusable_row_ends_every_window_over_it(make_panel: MakePanel, spec: WindowSpec):
    panel = make_panel([260])
    panel.features[120, 7] = np.nan
    (w,) = split(panel, spec)
    missing = sorted(set(range(76, 145)) - set(w.train.tolist()))
    assert missing == list(range(120, 128))


def test_the_newest_bars_change_no_earlier_window(make_panel: MakePanel, spec: WindowSpec):
    panel = make_panel([260])
    cut = replace(
        panel,
        **{
            name: getattr(panel, name)[:240]
            for name in ("features", "targets", "dates", "session", "close", "segment")
        },
        offsets=np.array([0, 240]),
    )
    cut.targets[235:] = np.nan
    (whole,), (start,) = split(make_panel([260]), spec), split(cut, spec)
    np.testing.assert_array_equal(whole.train, start.train)
    np.testing.assert_array_equal(whole.validation, start.validation)
    np.testing.assert_array_equal(whole.test[whole.test < 235], start.test)


def test_a_panel_of_another_horizon_is_refused(make_panel: MakePanel, spec: WindowSpec):
    with pytest.raises(UsageError, match="horizon"):
        split(make_panel([100], horizon=3), spec)


# ---------------------------------------------------------------- scaler


def equal(a: Scaler, b: Scaler) -> bool:
    same = np.array_equal(a.mean, b.mean) and np.array_equal(a.std, b.std)
    return same and a.target_scale == b.target_scale


@QUICK
@given(case=cases())
def test_no_row_outside_training_windows_moves_the_scaler(make_panel: MakePanel, case):
    spec, arguments = case
    panel = make_panel(**arguments)
    for w in split(panel, spec):
        if not len(w.train):
            continue
        before = fit_scaler(panel, w)
        used = np.zeros(len(panel.features), dtype=bool)
        for end in w.train:
            used[end - spec.lookback + 1 : end + 1] = True
        features, targets = panel.features.copy(), panel.targets.copy()
        features[~used] = 1e6
        outside = np.ones(len(targets), dtype=bool)
        outside[w.train] = False
        targets[outside] = 1e6
        assert equal(before, fit_scaler(replace(panel, features=features, targets=targets), w))
        assert used.nonzero()[0].tolist() == covered_rows(w.train, spec.lookback).tolist()


def test_every_covered_row_does_move_the_scaler(make_panel: MakePanel, spec: WindowSpec):
    panel = make_panel([260])
    (w,) = split(panel, spec)
    before = fit_scaler(panel, w)
    assert equal(before, fit_scaler(panel, w, spec.lookback))
    assert not equal(before, fit_scaler(panel, replace(w, lookback=60), 2))
    for row in (w.train[0] - spec.lookback + 1, w.train[-1]):
        features = panel.features.copy()
        features[row] += 10.0
        assert not equal(before, fit_scaler(replace(panel, features=features), w))
    targets = panel.targets.copy()
    targets[w.train[-1]] += 1.0
    after = fit_scaler(replace(panel, targets=targets), w)
    assert after.target_scale > before.target_scale


@pytest.fixture(scope="module")
def fitted(make_panel: MakePanel, spec: WindowSpec) -> tuple[Panel, Windows, Scaler]:
    panel = make_panel([260])
    (w,) = split(panel, spec)
    return panel, w, fit_scaler(panel, w)


def test_training_rows_become_standard(fitted: tuple[Panel, Windows, Scaler]):
    panel, w, scaler = fitted
    assert scaler.mean.dtype == scaler.std.dtype == np.float32
    assert scaler.mean.shape == scaler.std.shape == (50,)
    scaled = scaler.transform(panel.features[covered_rows(w.train, w.lookback)])
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() <= CLIP
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, atol=0.1)
    assert scaler.target_scale == pytest.approx(panel.targets[w.train].std(), rel=1e-4)


def test_one_scale_for_all_is_that_of_their_training_rows_together(
    make_panel: MakePanel, spec: WindowSpec
):
    panel = make_panel([260, 300])
    features = panel.features.copy()
    features[panel.rows(1)] *= 3.0
    panel = replace(panel, features=features)
    windows = split(panel, spec)
    own = {w.symbol: fit_scaler(panel, w) for w in windows}
    both = pooled_scalers(panel, windows, own)
    rows = np.concatenate([covered_rows(w.train, w.lookback) for w in windows])
    for symbol, scaler in both.items():
        np.testing.assert_allclose(scaler.mean, features[rows].mean(0, np.float64), rtol=1e-5)
        np.testing.assert_allclose(scaler.std, features[rows].std(0, np.float64), rtol=1e-5)
        assert scaler.target_scale == own[symbol].target_scale
    spread = [
        both[w.symbol].transform(features[covered_rows(w.train, w.lookback)]).std() for w in windows
    ]
    assert spread[1] > 1.5 * spread[0], "how symbols differ is left in"
    features = np.full_like(features, 1e6)
    features[rows] = panel.features[rows]
    again = pooled_scalers(replace(panel, features=features), windows, own)
    assert all(equal(again[s], both[s]) for s in both), "rows outside of training moved it"


def test_numpy_and_torch_are_scaled_alike(fitted: tuple[Panel, Windows, Scaler]):
    panel, _, scaler = fitted
    x = panel.features * 30.0  # far enough to be clipped
    ours = scaler.transform(torch.from_numpy(x))
    assert ours.dtype == torch.float32
    np.testing.assert_array_equal(ours.numpy(), scaler.transform(x))
    windows = scaler.transform(torch.from_numpy(x[80:200].reshape(4, 30, 50)))
    np.testing.assert_array_equal(windows.numpy().reshape(-1, 50), scaler.transform(x[80:200]))
    assert np.isnan(scaler.transform(x)[0]).any()


def test_scaling_leaves_its_input_alone(fitted: tuple[Panel, Windows, Scaler]):
    panel, _, scaler = fitted
    x = panel.features.copy()
    scaler.transform(x)
    scaler.transform(torch.from_numpy(x))
    np.testing.assert_array_equal(x, panel.features)


def test_a_scaler_survives_json_exactly(fitted: tuple[Panel, Windows, Scaler]):
    scaler = fitted[2]
    assert equal(Scaler.from_dict(json.loads(json.dumps(scaler.to_dict()))), scaler)


def test_constants_get_scale_one(fitted: tuple[Panel, Windows, Scaler]):
    panel, w, _ = fitted
    features, targets = panel.features.copy(), np.zeros_like(panel.targets)
    features[:, 3] = 0.1
    scaler = fit_scaler(replace(panel, features=features, targets=targets), w)
    assert scaler.std[3] == 1.0
    assert scaler.target_scale == 1.0
    np.testing.assert_allclose(scaler.transform(features)[:, 3], 0.0, atol=1e-6)


def test_no_training_window_no_scaler(fitted: tuple[Panel, Windows, Scaler]):
    panel, w, _ = fitted
    with pytest.raises(DataError, match="S00"):
        fit_scaler(panel, replace(w, train=np.zeros(0, np.int64)))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.0]},
        {"mean": "text"},
        {"std": [0.0] * 50},
        {"std": [float("nan")] * 50},
        {"target_scale": 0.0},
        {"target_scale": None},
    ],
    ids=str,
)
def test_a_damaged_scaler_is_refused(fitted: tuple[Panel, Windows, Scaler], change):
    with pytest.raises(DataError, match="scaler"):
        Scaler.from_dict(fitted[2].to_dict() | change)


# ---------------------------------------------------------------- gather


@given(
    lookback=st.integers(1, 12),
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=3),
    seed=st.integers(0, 1000),
)
def test_gather_is_slicing(lookback: int, shape: list[int], seed: int):
    source = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    ends = torch.from_numpy(np.random.default_rng(seed).integers(lookback - 1, 40, shape))
    got = gather(source, ends, lookback)
    assert got.shape == (*shape, lookback, 3)
    flat = got.reshape(-1, lookback, 3)
    for window, end in zip(flat, ends.reshape(-1).tolist(), strict=True):
        assert torch.equal(window, source[end - lookback + 1 : end + 1])


def test_gather_refuses_a_window_before_the_first_row():
    with pytest.raises((IndexError, RuntimeError)):
        gather(torch.zeros(10, 2), torch.tensor([3]), 5)


def test_gather_keeps_type_and_gives_its_own_memory():
    source = torch.zeros(10, 2, dtype=torch.bfloat16)
    got = gather(source, torch.tensor([5]), 3)
    got += 1
    assert got.dtype == torch.bfloat16
    assert source.sum() == 0


def test_older_sessions_count_less_and_the_last_one_whole():
    weights = faded(5, 2.0, torch.device("cpu"))
    assert weights is not None
    assert weights.squeeze(1).tolist() == pytest.approx([0.25, 2**-1.5, 0.5, 2**-0.5, 1.0])
    source = torch.ones(10, 3)
    got = gather(source, torch.tensor([4, 9]), 5, weights)
    assert torch.equal(got, weights.expand(2, 5, 3))
    assert torch.equal(source, torch.ones(10, 3)), "the source is read by every other window"
    assert gather(source.bfloat16(), torch.tensor([4]), 5, weights).dtype == torch.bfloat16
    assert faded(5, None, torch.device("cpu")) is None


def test_splitting_needs_no_torch():
    code = "import sys, vnquant.features.windows; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
