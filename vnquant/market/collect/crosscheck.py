"""Two sources about the same days: where do they disagree, and is it units, basis or bars?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vnquant.market.schema import PRICES
from vnquant.workspace import write_bytes

PRICE_SLACK = 0.0051
"""Thousand VND: half the last digit of a price with two decimals."""
VOLUME_SHARE = 0.01
VALUE_SHARE = 0.02
VALUE_SLACK = 5.1e6
STEP_SLACK = 0.003
"""Adjusted returns of one day, as a fraction; rounding of adj_close is allowed for besides."""
COLUMNS = ("symbol", "date", "field", "a", "b", "difference")
TYPICAL = 0.02
"""How far the typical ratio of closes may be from 1 before the whole symbol is in doubt."""


@dataclass(frozen=True)
class Comparison:
    """What two folders say.

    Attributes:
        disagreements: one row for each symbol, day and field; ``difference`` is b - a in the
            field's unit, for ``adj_step`` in adjusted daily returns. ``day``: a session that only
            one of the two has; a or b is its close there.
        symbols: indexed by symbol: common days, days only in a or b, disagreements, verdict.
        only_a: symbols that only the first folder has.
        only_b: symbols that only the second folder has.
    """

    disagreements: pd.DataFrame
    symbols: pd.DataFrame
    only_a: list[str]
    only_b: list[str]

    def to_markdown(self, a: str, b: str) -> str:
        """The summary people read."""
        days = int(self.symbols["common"].sum()) if len(self.symbols) else 0
        lines = [
            "# Two sources compared",
            "",
            f"a: {a}",
            f"b: {b}",
            "",
            f"{len(self.symbols):,} common symbols, {days:,} common days, "
            f"{len(self.disagreements):,} disagreements.",
        ]
        for name, only in (("a", self.only_a), ("b", self.only_b)):
            if only:
                lines.append(f"Only in {name}: {', '.join(only)}.")
        if len(self.disagreements):
            lines += ["", "| field | disagreements | symbols | largest |", "|---|---:|---:|---|"]
            for field, rows in self.disagreements.groupby("field", sort=True):
                worst = rows.iloc[int(rows["difference"].abs().fillna(-1).argmax())]
                where = f"{worst['symbol']} {worst['date']:%Y-%m-%d}"
                if field != "day":
                    where += f": {worst['a']:.6g} and {worst['b']:.6g}"
                lines.append(f"| {field} | {len(rows):,} | {rows['symbol'].nunique()} | {where} |")
        lines += [
            "",
            "| symbol | common days | only a | only b | disagreements | verdict |",
            "|---|---:|---:|---:|---:|---|",
        ]
        shown = self.symbols.sort_values("disagreements", ascending=False, kind="stable")
        for row in shown.reset_index().to_dict(orient="records"):
            lines.append(
                f"| {row['symbol']} | {row['common']:,} | {row['only_a']:,} | {row['only_b']:,} "
                f"| {row['disagreements']:,} | {row['verdict']} |"
            )
        return "\n".join(lines) + "\n"

    def write(self, folder: Path, a: str, b: str) -> None:
        """Write ``disagreements.csv`` and ``summary.md``."""
        table = self.disagreements.to_csv(index=False, date_format="%Y-%m-%d")
        write_bytes(folder / "disagreements.csv", table.encode())
        write_bytes(folder / "summary.md", self.to_markdown(a, b).encode())


def compare(a: pd.DataFrame, b: pd.DataFrame) -> Comparison:
    """Compare bars of two sources, in the schema's columns, sorted by symbol and date."""
    ours = {str(s): f.set_index("date") for s, f in a.groupby("symbol", observed=True)}
    theirs = {str(s): f.set_index("date") for s, f in b.groupby("symbol", observed=True)}
    found, table = [], []
    for symbol in sorted(ours.keys() & theirs.keys()):
        rows, row = _symbol(symbol, ours[symbol], theirs[symbol])
        found.append(rows)
        table.append(row)
    empty = pd.DataFrame(columns=list(COLUMNS))
    rows = (
        pd.concat([f for f in found if len(f)], ignore_index=True)
        if any(len(f) for f in found)
        else empty
    )
    names = ["symbol", "common", "only_a", "only_b", "disagreements", "verdict"]
    symbols = pd.DataFrame(table, columns=names).set_index("symbol")
    return Comparison(
        rows, symbols, sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    )


def _symbol(
    symbol: str, a: pd.DataFrame, b: pd.DataFrame
) -> tuple[pd.DataFrame, tuple[str, int, int, int, int, str]]:
    """Disagreements of one symbol, and its row of the table."""
    first, last = max(a.index[0], b.index[0]), min(a.index[-1], b.index[-1])
    # Days outside the common range are another depth, not a disagreement.
    a, b = a.loc[first:last], b.loc[first:last]
    days = a.index.intersection(b.index)
    only_a, only_b = a.index.difference(days), b.index.difference(days)
    one, two = a.loc[days], b.loc[days]
    verdict = _verdict(one, two)
    nothing = float("nan")
    parts = [_rows(symbol, "day", only_a, a.loc[only_a, "close"].to_numpy(), nothing)]
    parts += [_rows(symbol, "day", only_b, nothing, b.loc[only_b, "close"].to_numpy())]
    # A symbol in other units or on another basis differs everywhere: said once, not for each bar.
    if not verdict:
        parts += _fields(symbol, one, two)
    parts += _steps(symbol, one, two)
    parts = [p for p in parts if len(p)]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    rows = rows.sort_values(["date", "field"], kind="stable", ignore_index=True)
    if not verdict:
        verdict = "agree" if rows.empty else "differ"
    return rows, (symbol, len(days), len(only_a), len(only_b), len(rows), verdict)


def _verdict(one: pd.DataFrame, two: pd.DataFrame) -> str:
    """What is wrong with a whole symbol; empty if only single bars can be."""
    if one.empty:
        return "no common day"

    def typical(x: pd.Series, y: pd.Series) -> float:
        sound = (x > 0) & (y > 0)
        return float((y[sound] / x[sound]).median()) if sound.any() else 1.0

    closes = typical(one["close"], two["close"])
    if closes > 30 or closes < 1 / 30:
        return f"units: b's prices are {closes:.4g} times a's"
    far = np.abs(two["close"] / one["close"] - 1.0) > TYPICAL
    if far.mean() > 0.2:
        if np.abs(two["close"] / one["adj_close"] - 1.0).median() < TYPICAL / 2:
            return "basis: b's close is a's adjusted close"
        if np.abs(one["close"] / two["adj_close"] - 1.0).median() < TYPICAL / 2:
            return "basis: a's close is b's adjusted close"
    values = typical(one["value"], two["value"])
    if values > 30 or values < 1 / 30:
        return f"units: b's values are {values:.4g} times a's"
    return ""


def _fields(symbol: str, one: pd.DataFrame, two: pd.DataFrame) -> list[pd.DataFrame]:
    parts = []
    for field in (*PRICES[:-1], "volume", "value"):
        a, b = one[field].to_numpy(), two[field].to_numpy()
        larger = np.maximum(np.abs(a), np.abs(b))
        slack = {
            "volume": VOLUME_SHARE * larger,
            "value": np.maximum(VALUE_SHARE * larger, VALUE_SLACK),
        }.get(field, np.full(len(a), PRICE_SLACK))
        off = np.abs(b - a) > slack  # a missing value is silent, not different
        if off.any():
            parts.append(_rows(symbol, field, one.index[off], a[off], b[off]))
    return parts


def _steps(symbol: str, one: pd.DataFrame, two: pd.DataFrame) -> list[pd.DataFrame]:
    """Levels of adj_close depend on unit, basis and day of the download; daily steps do not."""
    a, b = one["adj_close"].to_numpy(), two["adj_close"].to_numpy()
    if len(a) < 2 or min(a.min(), b.min()) <= 0:
        return []
    steps = [x[1:] / x[:-1] - 1.0 for x in (a, b)]
    rounding = sum((PRICE_SLACK / x[1:] + PRICE_SLACK / x[:-1] for x in (a, b)), start=0.0)
    off = np.abs(steps[1] - steps[0]) > STEP_SLACK + rounding
    return [_rows(symbol, "adj_step", one.index[1:][off], steps[0][off], steps[1][off])]


def _rows(
    symbol: str, field: str, days: pd.Index, a: float | np.ndarray, b: float | np.ndarray
) -> pd.DataFrame:
    columns = {"symbol": symbol, "date": days, "field": field, "a": a, "b": b}
    rows = pd.DataFrame(columns, index=range(len(days)))
    return rows.assign(difference=rows["b"] - rows["a"])
