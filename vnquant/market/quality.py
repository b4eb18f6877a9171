"""Find every known class of defect in raw bars, quarantine what cannot be used, repair nothing.

Three things can happen to a bar. It is quarantined: left out of the clean bars and kept, with its
reasons, in the quarantine. It begins a new segment: the bar is sound, but the step from the one
before it is not (a corporate action missing from adj_close, a long suspension), so no feature and
no window may cross it. Or it is only noted: counted in the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.market import rules
from vnquant.market.adjustment import daily_ratio, rebuild

Mask = npt.NDArray[np.bool_]
Action = Literal["quarantine", "break", "note"]

CLASSES: dict[str, tuple[Action, str]] = {
    "zero_price": ("quarantine", "open, high, low or close is 0"),
    "high_below_low": ("quarantine", "high is below low"),
    "close_outside_range": ("quarantine", "close is above high or below low"),
    "open_outside_range": ("quarantine", "open is above high or below low"),
    "zero_volume": ("quarantine", "nothing was matched: a carried-forward bar or a suspension"),
    "repeated_bar": ("quarantine", "identical to the bar before it, volume included"),
    "not_a_session": ("quarantine", "the exchanges were closed on that date"),
    "level_break": ("break", "adjusted move beyond the widest band of any exchange by 1.5 points"),
    "long_gap": ("break", "more than max_gap sessions are missing before this bar"),
    "beyond_band": ("note", "adjusted move beyond the band of the labelled exchange by 1.5 points"),
    "missing_session": ("note", "sessions absent between a symbol's first and last bar"),
    "zero_value": ("note", "value is 0 although volume is not"),
    "value_mismatch": ("note", "value / volume is outside low..high by more than 2 %"),
    "coarse_adjustment": ("note", "adj_close below 2.00, where two decimals are a coarse step"),
}

BAND_SLACK = 0.015


@dataclass(frozen=True)
class QualityResult:
    """Clean bars, what was left out, and the counts.

    ``clean`` has the columns symbol, exchange, date, open, high, low, close (raw, thousand VND),
    adj_open, adj_high, adj_low, adj_close (rebuilt from ratios), volume, value, segment.
    """

    clean: pd.DataFrame
    quarantined: pd.DataFrame
    breaks: pd.DataFrame
    counts: dict[str, int]
    by_symbol: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        table = self.by_symbol.reset_index()
        return {
            "bars": len(self.clean) + len(self.quarantined),
            "kept": len(self.clean),
            "classes": {
                name: {"action": action, "meaning": meaning, "count": self.counts[name]}
                for name, (action, meaning) in CLASSES.items()
            },
            "symbols": {row["symbol"]: row for row in table.to_dict(orient="records")},
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
            "| class | action | count | meaning |",
            "|---|---|---:|---|",
        ]
        lines += [
            f"| {name} | {action} | {self.counts[name]:,} | {meaning} |"
            for name, (action, meaning) in CLASSES.items()
        ]
        shown = self.by_symbol.sort_values(["kept_share", "bars"])
        lines += ["", "| symbol | bars | kept | share | segments | first | last |", "|---|---:|---:|---:|---:|---|---|"]
        lines += [
            f"| {symbol} | {r.bars:,} | {r.kept:,} | {r.kept_share:.1%} | {r.segments} "
            f"| {r.first} | {r.last} |"
            for symbol, r in zip(shown.index, shown.itertuples(index=False), strict=True)
        ]
        return "\n".join(lines) + "\n"


def inspect(
    raw: pd.DataFrame, calendar: npt.NDArray[np.datetime64], *, max_gap: int
) -> QualityResult:
    """Judge raw bars.

    Args:
        raw: validated bars sorted by symbol and date; see `vnquant.market.schema`.
        calendar: sessions, datetime64[D], sorted.
        max_gap: a hole of more than this many sessions starts a new segment.
    """
    days = raw["date"].to_numpy().astype("datetime64[D]")
    faults = _bar_faults(raw, days, calendar)
    bad = np.logical_or.reduce(list(faults.values()))
    kept = raw[~bad].reset_index(drop=True)
    steps, ratio, first = _step_faults(kept, days[~bad], calendar, max_gap)
    notes = _notes(raw)
    broken = steps["level_break"] | steps["long_gap"]
    clean = _clean(kept, ratio, first, broken)
    quarantined = raw[bad].assign(reason=_reasons({k: v[bad] for k, v in faults.items()}))
    breaks = kept.loc[broken, ["symbol", "date"]].assign(
        reason=_reasons({k: steps[k][broken] for k in ("level_break", "long_gap")})
    )
    counts = {k: int(v.sum()) for k, v in (faults | steps | notes).items()}
    counts["missing_session"] = _missing_sessions(raw, days, calendar)
    return QualityResult(
        clean, quarantined.reset_index(drop=True), breaks.reset_index(drop=True), counts, _table(raw, clean)
    )


def _first_of_symbol(frame: pd.DataFrame) -> Mask:
    symbol = frame["symbol"].to_numpy()
    first = np.ones(len(frame), dtype=bool)
    first[1:] = symbol[1:] != symbol[:-1]
    return first


def _bar_faults(
    raw: pd.DataFrame, days: npt.NDArray[np.datetime64], calendar: npt.NDArray[np.datetime64]
) -> dict[str, Mask]:
    o, h, low, c, v = (raw[k].to_numpy() for k in ("open", "high", "low", "close", "volume"))
    same = ~_first_of_symbol(raw) & (v > 0)
    for column in (o, h, low, c, v):
        same[1:] &= column[1:] == column[:-1]
    return {
        "zero_price": (o <= 0) | (h <= 0) | (low <= 0) | (c <= 0),
        "high_below_low": h < low,
        "close_outside_range": (c > h) | (c < low),
        "open_outside_range": (o > h) | (o < low),
        "zero_volume": v <= 0,
        "repeated_bar": same,
        "not_a_session": ~np.isin(days, calendar),
    }


def _step_faults(
    kept: pd.DataFrame,
    days: npt.NDArray[np.datetime64],
    calendar: npt.NDArray[np.datetime64],
    max_gap: int,
) -> tuple[dict[str, Mask], npt.NDArray[np.float64], Mask]:
    """Faults of the step from the symbol's previous kept bar to this one."""
    first = _first_of_symbol(kept)
    ratio = daily_ratio(kept["close"].to_numpy(), kept["adj_close"].to_numpy(), first)
    place = np.searchsorted(calendar, days)
    gap = np.where(first, 0, np.diff(place, prepend=place[:1]) - 1)
    move = np.abs(ratio - 1.0)
    exchange = kept["exchange"].to_numpy().astype(str)
    labelled, widest = np.zeros(len(kept)), np.zeros(len(kept))
    # Bands change on two dates only, so one call for each era covers every row.
    eras = [np.datetime64(d) for d in (rules.BAND_CHANGE, rules.UPCOM_BAND_CHANGE)]
    era = np.searchsorted(np.array(eras), days, side="right")
    for number in np.unique(era):
        here, sample = era == number, days[era == number][0].astype(object)
        labelled[here] = rules.band(exchange[here], sample)
        widest[here] = rules.widest_band(sample)
    # After a hole the reference price is not the previous close, and bands are wider.
    level = ~first & (move > widest + BAND_SLACK)
    return (
        {
            "level_break": level,
            "long_gap": gap > max_gap,
            "beyond_band": ~first & ~level & (move > labelled + BAND_SLACK),
        },
        ratio,
        first,
    )


def _notes(raw: pd.DataFrame) -> dict[str, Mask]:
    v, value = raw["volume"].to_numpy(), raw["value"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        average = value / v / 1000.0
    off = (average > raw["high"].to_numpy() * 1.02) | (average < raw["low"].to_numpy() * 0.98)
    return {
        "zero_value": (value == 0) & (v > 0),
        "value_mismatch": off & (v > 0) & (value > 0),
        "coarse_adjustment": raw["adj_close"].to_numpy() < 2.0,
    }


def _missing_sessions(
    raw: pd.DataFrame, days: npt.NDArray[np.datetime64], calendar: npt.NDArray[np.datetime64]
) -> int:
    first = np.flatnonzero(_first_of_symbol(raw))
    last = np.append(first[1:], len(raw)) - 1
    span = np.searchsorted(calendar, days[last], "right") - np.searchsorted(calendar, days[first])
    present = np.add.reduceat(np.isin(days, calendar).astype(int), first)
    return int((span - present).sum())


def _clean(
    kept: pd.DataFrame, ratio: npt.NDArray[np.float64], first: Mask, broken: Mask
) -> pd.DataFrame:
    close = kept["close"].to_numpy()
    adjusted = rebuild(close, ratio, first)
    scale = adjusted / close
    clean = kept[["symbol", "exchange", "date", "open", "high", "low", "close"]].copy()
    for name in ("open", "high", "low"):
        clean[f"adj_{name}"] = kept[name].to_numpy() * scale
    clean["adj_close"] = adjusted
    clean["volume"], clean["value"] = kept["volume"], kept["value"]
    started = np.cumsum(broken)
    begins = np.flatnonzero(first)
    base = np.repeat(started[begins], np.diff(np.append(begins, len(kept)))) if len(kept) else started
    clean["segment"] = (started - base).astype(np.int32)
    return clean


def _reasons(masks: dict[str, Mask]) -> list[str]:
    names = np.array(list(masks))
    table = np.stack(list(masks.values()), axis=1)
    return ["; ".join(names[row]) for row in table]


def _table(raw: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    bars = raw.groupby("symbol", observed=True).size().rename("bars").to_frame()
    groups = clean.groupby("symbol", observed=True)
    bars["kept"] = groups.size().reindex(bars.index, fill_value=0)
    bars["kept_share"] = (bars["kept"] / bars["bars"]).round(6)
    bars["segments"] = (groups["segment"].max() + 1).reindex(bars.index, fill_value=0).astype(int)
    span = raw.groupby("symbol", observed=True)["date"].agg(["min", "max"])
    bars["first"] = span["min"].dt.strftime("%Y-%m-%d")
    bars["last"] = span["max"].dt.strftime("%Y-%m-%d")
    return bars
