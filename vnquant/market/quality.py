"""Find every known class of defect in raw bars, quarantine what cannot be used, repair nothing.

Three things can happen to a bar. It is quarantined: left out of the clean bars and kept, with its
reasons, in the quarantine. It begins a new segment: the bar is sound, but the step from the one
before it is not (a corporate action missing from adj_close, a long suspension), so no feature and
no window may cross it. Or it is only noted: counted in the report.

A quarantined bar leaves a hole of one session and costs little; a break costs a whole warm-up and
lookback. So a bar that contradicts itself is quarantined without any tolerance, while a large move
must be unexplained before it breaks the history.

What is decided about a bar is decided by it and the bars before it, and stays when later ones
arrive. One thing is said later, and of outcomes only: a step that the next bar took back.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.market import adjustment, rules
from vnquant.market.schema import check

Array = npt.NDArray[np.float64]
Dates = npt.NDArray[np.datetime64]
Mask = npt.NDArray[np.bool_]
Action = Literal["quarantine", "break", "note"]


class DefectClass(NamedTuple):
    """What is done about a class of defects, what is counted, and what it means."""

    action: Action
    unit: Literal["bars", "sessions", "symbols"]
    meaning: str


CLASSES: dict[str, DefectClass] = {
    "zero_price": DefectClass("quarantine", "bars", "open, high, low, close or adj_close is 0"),
    "high_below_low": DefectClass("quarantine", "bars", "high is below low"),
    "close_outside_range": DefectClass("quarantine", "bars", "close is above high or below low"),
    "open_outside_range": DefectClass("quarantine", "bars", "open is above high or below low"),
    "zero_volume": DefectClass(
        "quarantine", "bars", "nothing was matched: mostly the last price carried forward"
    ),
    "repeated_bar": DefectClass(
        "quarantine", "bars", "prices and volume identical to the bar before it, volume not 0"
    ),
    "not_a_session": DefectClass("quarantine", "bars", "weekend or a day without a session"),
    "level_break": DefectClass(
        "break",
        "bars",
        "adjusted move beyond the widest band of any exchange by 1.5 points, and neither the "
        "official reference price, nor a tick, nor absent sessions explain it",
    ),
    "adjustment_taken_back": DefectClass(
        "break", "bars", "adj_close / close stepped by over 2 % on the bar before, and back on this"
    ),
    "long_gap": DefectClass(
        "break", "bars", "more than max_gap sessions without a usable bar before this one"
    ),
    "beyond_band": DefectClass(
        "note",
        "bars",
        "adjusted move beyond the band of the labelled exchange by 1.5 points; the label is "
        "today's venue, the share may have traded on another one",
    ),
    "flat_bar": DefectClass("note", "bars", "traded at one price all day"),
    "zero_value": DefectClass("note", "bars", "value is 0 although volume is not"),
    "value_mismatch": DefectClass(
        "note", "bars", "value / volume is outside low..high by more than 2 %"
    ),
    "coarse_adjustment": DefectClass(
        "note", "bars", "adj_close below 2.00, where two decimals are a coarse step"
    ),
    "missing_session": DefectClass(
        "note", "sessions", "sessions without a bar between a symbol's first and last bar"
    ),
    "short_history": DefectClass("note", "symbols", "fewer than 1,250 bars"),
    "mostly_flat": DefectClass(
        "note", "symbols", "over half of the bars show one price: delisted or hardly traded"
    ),
    "ended_early": DefectClass(
        "note", "symbols", "the last bar is more than max_gap sessions before the newest of all"
    ),
    "venue_moved": DefectClass(
        "note", "symbols", "at least 5 bars beyond the labelled band: traded on another exchange"
    ),
}

BAND_SLACK = 0.015
SHORT_HISTORY = 1250
VENUE_MOVED = 5
EXPLAINED_ABSENCE = 2
"""Absent sessions over which a move may compound; a longer hole hides corporate actions."""


@dataclass(frozen=True)
class QualityResult:
    """Clean bars, what was left out, and the counts.

    Attributes:
        clean: symbol, exchange, date, open, high, low, close (raw, thousand VND), adj_open,
            adj_high, adj_low, adj_close (rebuilt from ratios), volume, value, segment, and
            false_step: the step to this bar was taken back by the next one. That is known at the
            next one's close, so it voids outcomes (`vnquant.features.panel`), never a feature.
        quarantined: the raw columns and ``reason``.
        breaks: symbol, date of a segment's first bar, and ``reason``.
        counts: class to number of its unit, see `CLASSES`; a bar may count in several.
        by_symbol: indexed by symbol: bars, kept, kept_share, segments, first, last and a count for
            each class.
    """

    clean: pd.DataFrame
    quarantined: pd.DataFrame
    breaks: pd.DataFrame
    counts: dict[str, int]
    by_symbol: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Everything but the bars, ready for JSON."""
        return {
            "bars": len(self.clean) + len(self.quarantined),
            "kept": len(self.clean),
            "quarantined": len(self.quarantined),
            "breaks": len(self.breaks),
            "classes": {n: c._asdict() | {"count": self.counts[n]} for n, c in CLASSES.items()},
            "symbols": self.by_symbol.reset_index().set_index("symbol", drop=False).T.to_dict(),
        }

    def to_markdown(self) -> str:
        """The report people read."""
        total = len(self.clean) + len(self.quarantined)
        lines = [
            "# Quality report",
            "",
            f"{len(self.clean):,} of {total:,} bars kept; {len(self.quarantined):,} quarantined; "
            f"{len(self.breaks):,} breaks. Nothing was repaired.",
            "",
            "| class | action | count | of | meaning |",
            "|---|---|---:|---|---|",
        ]
        lines += [
            f"| {name} | {c.action} | {self.counts[name]:,} | {c.unit} | {c.meaning} |"
            for name, c in CLASSES.items()
        ]
        lines += [
            "",
            "| symbol | bars | kept | share | segments | first | last | found |",
            "|---|---:|---:|---:|---:|---|---|---|",
        ]
        shown = self.by_symbol.sort_values(["kept_share", "bars"]).reset_index()
        for row in shown.to_dict(orient="records"):
            found = ", ".join(f"{n} {row[n]:,}" for n in CLASSES if row[n])
            lines.append(
                f"| {row['symbol']} | {row['bars']:,} | {row['kept']:,} | {row['kept_share']:.1%} "
                f"| {row['segments']} | {row['first']} | {row['last']} | {found or 'nothing'} |"
            )
        return "\n".join(lines) + "\n"


def inspect(
    raw: pd.DataFrame, calendar: Dates, *, max_gap: int, today: dt.date | None = None
) -> QualityResult:
    """Judge raw bars.

    Args:
        raw: bars of a source, sorted by symbol and date; see `vnquant.market.schema`.
        calendar: sessions, datetime64[D], sorted.
        max_gap: a hole of more than this many sessions starts a new segment.
        today: no bar may be later; None: the clock's date in Viet Nam.

    Raises:
        DataError: not bars at all by the schema, so that no judgement is possible.
    """
    check(raw, where="bars", today=today)
    days = raw["date"].to_numpy().astype("datetime64[D]")
    first = _first_of_symbol(raw)
    found = _bar_faults(raw, first, days, calendar)
    bad = np.logical_or.reduce(list(found.values()))
    quarantined = raw[bad].assign(reason=_reasons({k: v[bad] for k, v in found.items()}))
    kept = raw[~bad].reset_index(drop=True)
    ratio, begins = _ratio(kept)
    steps = _step_faults(raw, first, days, bad, ratio, begins, calendar, max_gap)
    breaking = {n: m for n, m in steps.items() if CLASSES[n].action == "break"}
    broken = np.logical_or.reduce(list(breaking.values()))
    clean = _clean(kept, ratio, begins, broken)
    # Where a bar takes back an adjustment, the step to the bar before it was false.
    clean["false_step"] = np.append(steps["adjustment_taken_back"], False)[1:]
    breaks = kept.loc[broken, ["symbol", "date"]].assign(
        reason=_reasons({n: m[broken] for n, m in breaking.items()})
    )
    for name, mask in steps.items():
        found[name] = np.zeros(len(raw), dtype=bool)
        found[name][~bad] = mask
    table = _table(raw, clean, first, days, found | _notes(raw), calendar, max_gap)
    return QualityResult(
        clean,
        quarantined.reset_index(drop=True),
        breaks.reset_index(drop=True),
        {name: int(table[name].sum()) for name in CLASSES},
        table,
    )


def _first_of_symbol(frame: pd.DataFrame) -> Mask:
    symbol = frame["symbol"].to_numpy()
    first = np.ones(len(frame), dtype=bool)
    first[1:] = symbol[1:] != symbol[:-1]
    return first


def _bar_faults(raw: pd.DataFrame, first: Mask, days: Dates, calendar: Dates) -> dict[str, Mask]:
    names = ("open", "high", "low", "close", "volume")
    o, h, low, c, v = (raw[k].to_numpy() for k in names)
    same = ~first & (v > 0)
    for column in (o, h, low, c, v):
        same[1:] &= column[1:] == column[:-1]
    return {
        "zero_price": np.minimum.reduce([o, h, low, c, raw["adj_close"].to_numpy()]) <= 0,
        "high_below_low": h < low,
        "close_outside_range": (c > h) | (c < low),
        "open_outside_range": (o > h) | (o < low),
        "zero_volume": v <= 0,
        "repeated_bar": same,
        "not_a_session": ~np.isin(days, calendar),
    }


def _ratio(bars: pd.DataFrame) -> tuple[Array, Mask]:
    first = _first_of_symbol(bars)
    close, adj_close = bars["close"].to_numpy(), bars["adj_close"].to_numpy()
    return adjustment.daily_ratio(close, adj_close, first), first


def _step_faults(
    raw: pd.DataFrame,
    first: Mask,
    days: Dates,
    bad: Mask,
    ratio: Array,
    begins: Mask,
    calendar: Dates,
    max_gap: int,
) -> dict[str, Mask]:
    """Faults of the step from a symbol's previous kept bar to each kept bar.

    A step over quarantined bars is broken only if a step inside it is: several ordinary days
    together may well exceed one day's band.
    """
    close, exchange = raw["close"].to_numpy(), raw["exchange"].to_numpy().astype(str)
    factor = adjustment.factor_step(close, raw["adj_close"].to_numpy(), first)
    limit, jumped = _unexplained(raw, first, days, factor, calendar)
    undone = adjustment.taken_back(factor, first)
    rows = np.flatnonzero(~bad)
    before = np.concatenate([[-1], rows[:-1]])

    def inside(mask: Mask) -> Mask:
        total = np.concatenate([[0], np.cumsum(mask)])
        hit: Mask = (total[rows + 1] - total[before + 1]) > 0
        return hit & ~begins

    move = np.abs(ratio - 1.0)
    place = np.searchsorted(calendar, days[rows])
    gap = np.where(begins, 0, np.diff(place, prepend=place[:1]) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = ratio * np.roll(close[rows], 1) / close[rows]
    labelled = rules.band(exchange[rows], days[rows])
    return {
        "level_break": inside(jumped) & (move > limit[rows]),
        "adjustment_taken_back": inside(undone) & (np.abs(step - 1.0) > adjustment.REVERTED),
        "long_gap": gap > max_gap,
        "beyond_band": ~begins & (move > labelled + BAND_SLACK),
    }


def _unexplained(
    raw: pd.DataFrame, first: Mask, days: Dates, factor: Array, calendar: Dates
) -> tuple[Array, Mask]:
    """The largest ordinary move to each raw bar, and whether its move is beyond any explanation.

    Bands hold from the official reference price, which on UPCOM (and HNX until about 2012) is the
    average of the session before, and which change_text gives: close minus change.
    """
    close, exchange = raw["close"].to_numpy(), raw["exchange"].to_numpy().astype(str)
    before = np.roll(close, 1)
    widest = rules.widest_band(days)
    with np.errstate(divide="ignore", invalid="ignore"):
        # One tick is always allowed, and at 600 VND it is a sixth of the price.
        limit = np.maximum(widest, rules.tick(exchange, before, days) / before) + BAND_SLACK
        move = np.where(first, 0.0, close / before * factor - 1.0)
        jumped = ~(np.abs(move) <= limit)
    rows = np.flatnonzero(jumped & ~first)
    change = adjustment.official_change(raw["change_text"].iloc[rows])
    reference = close[rows] - change
    step = rules.tick(exchange[rows], close[rows], days[rows])
    place = np.searchsorted(calendar, days[rows])
    absent = place - np.searchsorted(calendar, days[rows - 1]) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        allowed = np.maximum(widest[rows], step / reference) + BAND_SLACK
        official = (reference > 0) & (np.abs(change / reference) <= allowed)
        at = reference * factor[rows]
        averaged = (at >= raw["low"].to_numpy()[rows - 1] - step) & (
            at <= raw["high"].to_numpy()[rows - 1] + step
        )
        over_days = (1.0 + widest[rows]) ** (absent + 1) - 1.0 + BAND_SLACK
    compounded = (
        (absent > 0)
        & (absent <= EXPLAINED_ABSENCE)
        & (factor[rows] == 1.0)
        & (np.abs(move[rows]) <= over_days)
    )
    jumped[rows] = ~(official & (averaged | compounded))
    return limit, jumped


def _notes(raw: pd.DataFrame) -> dict[str, Mask]:
    v, value = raw["volume"].to_numpy(), raw["value"].to_numpy()
    o, h, low, c = (raw[k].to_numpy() for k in ("open", "high", "low", "close"))
    with np.errstate(divide="ignore", invalid="ignore"):
        average = value / v / 1000.0
    off = (average > h * 1.02) | (average < low * 0.98)
    return {
        "flat_bar": (v > 0) & (o == h) & (h == low) & (low == c),
        "zero_value": (value == 0) & (v > 0),
        "value_mismatch": off & (v > 0) & (value > 0),
        "coarse_adjustment": raw["adj_close"].to_numpy() < 2.0,
    }


def _clean(kept: pd.DataFrame, ratio: Array, first: Mask, broken: Mask) -> pd.DataFrame:
    close = kept["close"].to_numpy()
    adjusted = adjustment.rebuild(close, ratio, first)
    clean = kept[["symbol", "exchange", "date", "open", "high", "low", "close"]].copy()
    for name in ("open", "high", "low"):
        # Through the ratio to the raw close, so that high == close stays exactly equal.
        clean[f"adj_{name}"] = adjusted * (kept[name].to_numpy() / close)
    clean["adj_close"] = adjusted
    clean["volume"], clean["value"] = kept["volume"], kept["value"]
    started = np.cumsum(broken)
    base = started[first][np.cumsum(first) - 1]
    clean["segment"] = (started - base).astype(np.int32)
    return clean


def _reasons(masks: dict[str, Mask]) -> list[str]:
    names = np.array(list(masks))
    return ["; ".join(names[row]) for row in np.stack(list(masks.values()), axis=1)]


def _table(
    raw: pd.DataFrame,
    clean: pd.DataFrame,
    first: Mask,
    days: Dates,
    found: dict[str, Mask],
    calendar: Dates,
    max_gap: int,
) -> pd.DataFrame:
    begin = np.flatnonzero(first)
    last = np.append(begin[1:], len(raw)) - 1
    table = pd.DataFrame(index=pd.Index(raw["symbol"].to_numpy()[begin], name="symbol"))
    table["bars"] = last - begin + 1
    groups = clean.groupby("symbol", observed=True)
    table["kept"] = groups.size().reindex(table.index, fill_value=0)
    table["kept_share"] = (table["kept"] / table["bars"]).round(6)
    table["segments"] = (groups["segment"].max() + 1).reindex(table.index, fill_value=0).astype(int)
    table["first"] = np.datetime_as_string(days[begin], unit="D")
    table["last"] = np.datetime_as_string(days[last], unit="D")
    counts = {n: np.add.reduceat(m.astype(np.int64), begin) for n, m in found.items()}
    opened, closed = (np.searchsorted(calendar, days[i], "left") for i in (begin, last))
    ended = np.searchsorted(calendar, days[last], "right")
    present = np.add.reduceat((~found["not_a_session"]).astype(np.int64), begin)
    counts["missing_session"] = ended - opened - present
    same_price = raw["high"].to_numpy() == raw["low"].to_numpy()
    flat = np.add.reduceat(same_price.astype(np.int64), begin)
    counts["short_history"] = (table["bars"].to_numpy() < SHORT_HISTORY).astype(np.int64)
    counts["mostly_flat"] = (2 * flat > table["bars"].to_numpy()).astype(np.int64)
    counts["ended_early"] = (closed.max() - closed > max_gap).astype(np.int64)
    counts["venue_moved"] = (counts["beyond_band"] >= VENUE_MOVED).astype(np.int64)
    for name in CLASSES:
        table[name] = counts[name]
    return table
