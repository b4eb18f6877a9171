"""What must hold for every market, every target and every set of rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnquant.backtest.bars import Bars
from vnquant.backtest.orders import fill
from vnquant.backtest.quotes import quotes
from vnquant.backtest.rules import NAIVE, TradingRules
from vnquant.backtest.settlement import lag
from vnquant.backtest.simulate import simulate
from vnquant.market.rules import lot, round_to_tick
from vnquant.market.sessions import between

SESSIONS, SYMBOLS, CAPITAL = 12, 4, 50e6
STARTS = ["2015-12-21", "2020-12-21", "2022-08-15", "2023-06-05"]
SWITCHES = {
    "suspensions": True,
    "bands": True,
    "ex_reference": True,
    "average_reference": True,
    "ticks": True,
    "lots": True,
    "settle_shares": True,
    "settle_cash": True,
    "fee": 0.0015,
    "sale_tax": 0.001,
    "slippage": 0.01,
    "participation": 0.05,
}
SUBSETS = st.sets(st.sampled_from(sorted(SWITCHES)))
SEEDS = st.integers(0, 2**32 - 1)


def chosen(names: set[str], **more: object) -> TradingRules:
    on = {name: SWITCHES[name] for name in names}
    return replace(NAIVE, **{"next_session": True, "price": "open", **on, **more})


def random_market(seed: int, first: str, *, actions: bool = True, moves: bool = True) -> Bars:
    """Bars with jumps to the limits, holes, sessions without volume and corporate actions."""
    random = np.random.default_rng(seed)
    shape = (SESSIONS, SYMBOLS)
    start = np.datetime64(first)
    dates = between(start, start + np.timedelta64(40, "D"))[:SESSIONS]
    venue = np.tile(np.array(["HOSE", "HNX", "UPCOM", "HOSE"]), (SESSIONS, 1))
    day = np.broadcast_to(dates[:, None], shape)
    step = random.choice([-0.07, -0.03, 0.0, 0.03, 0.07], shape) * moves
    factor = np.where(random.random(shape) < 0.1 * actions, random.choice([1.05, 2.0], shape), 1.0)
    level = random.uniform(5, 60, SYMBOLS) * np.cumprod((1 + step) / factor, axis=0)
    close = round_to_tick(venue, level, day) if moves else level
    gap = random.choice([0.98, 1.0, 1.02], shape) if moves else np.ones(shape)
    opened = round_to_tick(venue, close * gap, day) if moves else close
    volume = random.choice([0.0, 3_000.0, 1e6], shape, p=[0.1, 0.3, 0.6])
    gone = random.random(shape) < 0.05
    # A hole takes its corporate action along: it lands on the next bar.
    factor[gone] = 1.0
    nan = lambda a: np.where(gone, np.nan, a)  # noqa: E731
    return Bars(
        dates=dates,
        symbols=("A", "B", "C", "D"),
        exchange=venue,
        open=nan(opened),
        high=nan(np.maximum(opened, close)),
        low=nan(np.minimum(opened, close)),
        close=nan(close),
        volume=nan(volume),
        value=nan(volume * close * 1000),
        factor=factor,
    )


def random_targets(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed + 1)
    raw = random.random((SESSIONS, SYMBOLS)) * (random.random((SESSIONS, SYMBOLS)) < 0.6)
    raw /= np.maximum(raw.sum(axis=1, keepdims=True), 1.0)
    raw[random.random((SESSIONS, SYMBOLS)) < 0.2] = np.nan
    return raw


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(STARTS), SUBSETS, st.sampled_from(["open", "close"]))
def test_the_book_never_owes_and_always_adds_up(
    seed: int, first: str, names: set[str], price: str
) -> None:
    bars = random_market(seed, first)
    rules = chosen(names, price=price)
    result = simulate(bars, random_targets(seed), rules, capital=CAPITAL)
    assert (result.positions >= 0).all()
    assert (result.cash >= 0).all()
    assert (result.settled >= 0).all()
    assert (result.settled <= result.cash + 1e-6).all()
    assert (result.equity > 0).all()
    orders = result.orders
    assert (orders["filled"] >= 0).all()
    assert (orders["filled"] <= orders["ordered"] * (1 + 1e-9)).all()
    assert orders["value"].sum() == pytest.approx(result.traded.sum())
    fee = rules.fee * result.traded.sum()
    assert result.costs["fee"].sum() == pytest.approx(fee)
    # Cash changes by what was traded, and by fractions of corporate actions, which only add.
    flow = -np.sum(orders["side"] * orders["value"]) - fee - result.costs["tax"].sum()
    rest = result.cash[-1] - CAPITAL - flow
    assert rest >= -1e-3
    if "lots" not in names:
        assert rest == pytest.approx(0, abs=1e-3)


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(STARTS), SUBSETS)
def test_lots_are_whole(seed: int, first: str, names: set[str]) -> None:
    bars = random_market(seed, first)
    result = simulate(bars, random_targets(seed), chosen(names | {"lots"}), capital=CAPITAL)
    fills = result.fills
    size = lot(
        bars.exchange[fills["session"], fills["symbol"]], bars.dates[fills["session"].to_numpy()]
    )
    whole = fills["filled"].to_numpy() % size == 0
    bought = fills["side"].to_numpy() > 0
    assert whole[bought].all()
    # A sale of an odd lot leaves nothing behind.
    after = result.positions[fills["session"], fills["symbol"]]
    assert (whole | (after == 0)).all()
    assert (result.positions == np.floor(result.positions)).all()


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(STARTS), st.booleans(), st.booleans(), st.booleans())
def test_without_costs_and_moves_wealth_is_conserved(
    seed: int, first: str, lots: bool, settle: bool, limits: bool
) -> None:
    """Prices that change with corporate actions alone: whatever is traded, wealth stays."""
    bars = random_market(seed, first, moves=False)
    names = {n for n, on in (("lots", lots), ("settle_shares", settle), ("bands", limits)) if on}
    if settle:
        names |= {"settle_cash", "suspensions", "participation"}
    # Without a bar on the ex-date the action would be lost: see `random_market`.
    sound = replace(bars, close=_filled(bars), open=_filled(bars), high=_filled(bars))
    sound = replace(sound, low=sound.close, volume=np.nan_to_num(bars.volume))
    result = simulate(sound, random_targets(seed), chosen(names), capital=CAPITAL)
    assert result.equity == pytest.approx(np.full(SESSIONS, CAPITAL), rel=1e-9)


def _filled(bars: Bars) -> np.ndarray:
    base = np.nanmax(bars.close * np.cumprod(bars.factor, axis=0), axis=0)
    return base / np.cumprod(bars.factor, axis=0)


@settings(max_examples=200)
@given(SEEDS, st.sampled_from(STARTS), SUBSETS, SUBSETS, st.integers(1, SESSIONS - 1))
def test_more_rules_never_make_a_fill_larger(
    seed: int, first: str, some: set[str], more: set[str], t: int
) -> None:
    """Same orders, same book, same session. The two references alone are no restriction: they
    move the limits, so they are the same on both sides."""
    references = {"ex_reference", "average_reference"} & some
    few = some
    many = (some | more) - {"ex_reference", "average_reference"} | references
    bars = random_market(seed, first)
    random = np.random.default_rng(seed)
    held = np.floor(random.random(SYMBOLS) * 5000)
    settled = np.floor(held * random.random(SYMBOLS))
    order = random.normal(size=SYMBOLS) * 4000
    cash = random.random() * 2e8
    loose, tight = (
        fill(order, held, settled, cash, quotes(bars, chosen(n)).session(t), chosen(n)).shares
        for n in (few, many)
    )
    assert (np.abs(tight) <= np.abs(loose) * (1 + 1e-9)).all()
    assert (np.sign(loose) * np.sign(order) >= 0).all()


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(STARTS), SUBSETS)
def test_the_future_changes_nothing_in_the_past(seed: int, first: str, names: set[str]) -> None:
    bars, targets = random_market(seed, first), random_targets(seed)
    other, cut = random_market(seed + 1, first), SESSIONS // 2
    mixed = replace(
        bars,
        **{
            name: np.concatenate([getattr(bars, name)[:cut], getattr(other, name)[cut:]])
            for name in ("open", "high", "low", "close", "volume", "value", "factor")
        },
    )
    changed = np.concatenate([targets[:cut], random_targets(seed + 1)[cut:]])
    one = simulate(bars, targets, chosen(names), capital=CAPITAL)
    two = simulate(mixed, changed, chosen(names), capital=CAPITAL)
    assert (one.equity[:cut] == two.equity[:cut]).all()
    assert (one.positions[:cut] == two.positions[:cut]).all()


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(STARTS), SUBSETS)
def test_sold_shares_had_been_settled(seed: int, first: str, names: set[str]) -> None:
    """With all corporate actions away: what is sold up to t was bought by the cycle before t."""
    bars = random_market(seed, first, actions=False)
    result = simulate(
        bars, random_targets(seed), chosen(names | {"settle_shares"}), capital=CAPITAL
    )
    steps = lag(bars.dates, "open")
    change = np.diff(result.positions, axis=0, prepend=0.0)
    for t in range(SESSIONS):
        arrived = [u for u in range(t + 1) if u + steps[u] <= t]
        sold = np.maximum(-change[: t + 1], 0.0).sum(axis=0)
        assert (sold <= np.maximum(change[arrived], 0.0).sum(axis=0) + 1e-6).all()
