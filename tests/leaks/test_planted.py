"""Ten planted leaks: each is flagged, and what the program really does is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.leaks.conftest import CUTS, SPEC, prepare
from tests.stages.conftest import SPEC as RUN
from tests.stages.conftest import context
from vnquant.errors import DataError
from vnquant.evaluation import baselines, boosting, probes
from vnquant.evaluation.leaks import chosen_later, misaligned, overlapping, refuse, survivors
from vnquant.features.panel import Panel, build_panel
from vnquant.features.windows import Scaler, Windows, fit_scaler
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.stages import features as features_stage
from vnquant.stages import run_stage

Ends = Mapping[str, np.ndarray]
Scalers = Mapping[str, Scaler]


def with_feature(
    column: int, make: Callable[[pd.DataFrame, Panel], np.ndarray]
) -> Callable[[pd.DataFrame], Panel]:
    """The honest preparation, with one feature replaced by a leaking one."""

    def planted(raw: pd.DataFrame) -> Panel:
        panel = prepare(raw)
        panel.features[:, column] = make(raw, panel)
        return panel

    return planted


def tomorrow(_: pd.DataFrame, panel: Panel) -> np.ndarray:
    return panel.targets[:, 0]


def centred(_: pd.DataFrame, panel: Panel) -> np.ndarray:
    """Volume-like smoothing over two sessions on either side."""
    return pd.Series(panel.features[:, 0]).rolling(5, center=True).mean().to_numpy()


def level(raw: pd.DataFrame, panel: Panel) -> np.ndarray:
    """log of the published adjusted close."""
    symbols = np.repeat(panel.symbols, np.diff(panel.offsets))
    prices = raw.set_index(["symbol", "date"])["adj_close"]
    index = pd.MultiIndex.from_arrays([symbols, pd.DatetimeIndex(panel.dates)])
    return np.log(prices.reindex(index).to_numpy())


def filled(raw: pd.DataFrame) -> Panel:
    """Every symbol on every session, gaps filled with the next bar."""
    calendar = sessions(raw)
    clean = inspect(raw, calendar, max_gap=SPEC.windows.max_gap).clean
    parts = []
    for _, bars in clean.groupby("symbol"):
        days = pd.DatetimeIndex(calendar, name="date").astype(bars["date"].dtype)
        days = days[days >= bars["date"].iloc[0]]
        parts.append(bars.set_index("date").reindex(days).bfill().dropna(subset="close"))
    bars = pd.concat([p.reset_index() for p in parts], ignore_index=True)
    return build_panel(bars, calendar, SPEC.windows.horizon)


def test_the_honest_preparation_is_causal_and_knows_no_level(raw: pd.DataFrame) -> None:
    assert probes.not_causal(prepare, raw, CUTS) == []
    assert probes.depends_on_level(prepare, raw) == []


def test_1_a_scaler_fitted_on_everything(panel: Panel, windows: list[Windows]) -> None:
    def everything(panel: Panel, w: Windows) -> Scaler:
        rows = np.concatenate([w.train, w.validation, w.test])
        return fit_scaler(panel, replace(w, train=rows))

    for w in windows:
        assert probes.fits_beyond_training(fit_scaler, panel, w) == []
        found = probes.fits_beyond_training(everything, panel, w)
        assert [leak.what.split()[0] for leak in found] == ["mean", "std", "target_scale"]


def test_2_the_target_among_the_features(raw: pd.DataFrame) -> None:
    found = probes.not_causal(with_feature(7, tomorrow), raw, CUTS)
    assert {leak.where for leak in found} == {"feature gap"}
    assert len(found) == len(CUTS)


def test_2_the_target_among_the_features_beats_noise(
    panel: Panel, windows: list[Windows], scalers: Scalers, ends: Ends
) -> None:
    """The same leak by what it earns, on targets that nothing can forecast."""
    noise = np.random.default_rng(3).normal(0.0, 0.02, panel.targets.shape).astype(np.float32)
    honest = replace(panel, targets=np.where(np.isnan(panel.targets), np.nan, noise))
    leaking = replace(honest, features=panel.features.copy())
    leaking.features[:, 7] = honest.targets.sum(axis=1)
    leaking.features[np.isnan(leaking.features[:, 7]), 7] = 0.0
    for given, leaks in ((honest, False), (leaking, True)):
        tables = baselines.compare(given, windows, scalers, ends, SPEC)
        for name in ("ridge_per_symbol", "ridge_pooled"):
            assert bool(probes.beats_noise(tables[name], SPEC.windows.horizon)) is leaks, name


def test_3_the_level_of_adjusted_prices(raw: pd.DataFrame) -> None:
    found = probes.depends_on_level(with_feature(7, level), raw)
    assert [leak.where for leak in found] == ["feature gap"]


def test_4_a_centred_window(raw: pd.DataFrame) -> None:
    found = probes.not_causal(with_feature(7, centred), raw, CUTS)
    assert {leak.where for leak in found} == {"feature gap"}


@pytest.mark.parametrize(
    ("part", "after", "says"),
    [("train", 1, "targets of train"), ("validation", 1, "targets of validation")],
)
def test_5_training_without_a_purge(
    panel: Panel, windows: list[Windows], part: str, after: int, says: str
) -> None:
    assert overlapping(panel, windows) == []
    horizon, w = SPEC.windows.horizon, windows[0]
    later = w.validation if part == "train" else w.test
    # One more window than the purge allows: its last target is the next part's first session.
    grown = np.append(getattr(w, part), later[0] - horizon + after - 1)
    found = overlapping(panel, [replace(w, **{part: grown}), *windows[1:]])
    assert found
    assert found[0].what.startswith(says)
    with pytest.raises(DataError, match="targets of"):
        refuse(found)


def test_6_a_list_of_survivors() -> None:
    first, end, random = dt.date(2015, 1, 5), dt.date(2023, 12, 29), np.random.default_rng(1)
    lives = {f"S{i:03d}": (first, end) for i in range(120)}
    lives |= {f"S{i:03d}": (first, dt.date(2021, 1 + i % 12, 5)) for i in range(120, 160)}
    drawn = random.choice(sorted(lives), 80, replace=False)
    day = dt.date(2020, 6, 1)
    assert survivors(lives, drawn, day) == []
    alive = [s for s, (_, last) in lives.items() if last == end][:80]
    assert "0 of 80 chosen symbols have left" in survivors(lives, alive, day)[0].what
    assert survivors(lives, alive, dt.date(2022, 6, 1)) == [], "nobody has left since then"


def test_6_a_list_made_after_the_test_began() -> None:
    starts = [dt.date(2021, 1, 4), dt.date(2022, 1, 4)]
    assert chosen_later(dt.date(2020, 12, 31), starts) == []
    assert "1 of 2 test parts" in chosen_later(dt.date(2021, 6, 1), starts)[0].what
    assert "nobody has recorded" in chosen_later(None, starts)[0].what


def test_7_a_shuffled_split(panel: Panel, windows: list[Windows]) -> None:
    random, shuffled = np.random.default_rng(0), []
    for w in windows:
        rows = random.permutation(np.concatenate([w.train, w.validation, w.test]))
        cuts = np.cumsum([len(w.train), len(w.validation)])
        train, validation, test = (np.sort(part) for part in np.split(rows, cuts))
        shuffled.append(replace(w, train=train, validation=validation, test=test))
    assert len(overlapping(panel, shuffled)) == 3


def test_8_gaps_filled_from_the_future(raw: pd.DataFrame) -> None:
    found = probes.not_causal(filled, raw, CUTS)
    assert any(leak.where == "FPT" and "only with" in leak.what for leak in found)


def test_9_a_calendar_aligned_by_row(panel: Panel) -> None:
    assert misaligned(panel) == []
    rows = [np.arange(n, dtype=np.int32) for n in np.diff(panel.offsets)]
    found = misaligned(replace(panel, session=np.concatenate(rows)))
    assert "FPT" in {leak.where for leak in found}
    backwards = panel.session.copy()
    backwards[[3, 4]] = backwards[[4, 3]]
    dates = panel.dates.copy()
    dates[[3, 4]] = dates[[4, 3]]
    found = misaligned(replace(panel, session=backwards, dates=dates))
    assert [leak.what for leak in found] == ["rows are not in order of time"]


def test_10_a_threshold_tuned_on_the_test_part(
    panel: Panel, windows: list[Windows], scalers: Scalers, ends: Ends
) -> None:
    def honest(name: str) -> probes.Forecast:
        def forecast(panel: Panel) -> pd.DataFrame:
            given = (panel, windows, scalers, ends, SPEC)
            return (baselines.compare(*given) | boosting.compare(*given))[name]

        return forecast

    def tuned(panel: Panel) -> pd.DataFrame:
        table = honest("ridge_pooled")(panel)
        rises = table[[f"y_{h}" for h in range(1, 6)]].sum(axis=1) > 0
        steps = np.quantile(table["p_up"], np.linspace(0.05, 0.95, 19))
        best = max(steps, key=lambda t: float(((table["p_up"] > t) == rises).mean()))
        return table.assign(p_up=np.clip(table["p_up"] - best + 0.5, 0.0, 1.0))

    given = (panel, windows, scalers, ends, SPEC)
    for name in baselines.compare(*given) | boosting.compare(*given):
        assert probes.reads_outcomes(honest(name), panel, ends) == [], name
    found = probes.reads_outcomes(tuned, panel, ends)
    assert [leak.where for leak in found] == ["forecast p_up"]


def test_a_run_refuses_a_misaligned_calendar(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage itself looks, so that no later change can bring the leak back unseen."""

    def by_row(*given: object) -> Panel:
        panel = build_panel(*given)  # type: ignore[arg-type]
        rows = [np.arange(n, dtype=np.int32) for n in np.diff(panel.offsets)]
        return replace(panel, session=np.concatenate(rows))

    monkeypatch.setattr(features_stage, "build_panel", by_row)
    with pytest.raises(DataError, match="is held for session"):
        run_stage(context(tmp_path_factory.mktemp("by_row") / "w", RUN), "features")
