"""A study's result for people: Markdown, and one plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vnquant.studies.recommendation import WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vnquant.report.svg import Image


def to_markdown(result: Mapping[str, Any]) -> str:
    """Question, recommendation, the table of trials, the rivals, and how to repeat it."""
    study, rows = result["study"], _rows(result)
    done = [row for row in rows if "failed" not in row]
    lines = [f"# {study['name']}", "", study["question"], "", result["recommendation"], ""]
    lines += [
        "| trial | RankIC (s.e.) | accuracy | 95 % interval | ECE | as the models say it | Brier | "
        f"{WORDS[result['metric']]} minus the first's | adjusted p | core-hours | run |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [_line(row) for row in rows]
    if result["seed_noise"] is not None:
        lines += [
            "",
            f"Another seed alone changes the first trial's {WORDS[result['metric']]} by up to "
            f"{result['seed_noise']:.4f} (repeats: {len(result['repeats'])}).",
        ]
    if timed := [row for row in done if "forecast_seconds" in row]:
        said = (f"{row['name']} {row['forecast_seconds']:.2f}" for row in timed)
        lines += ["", f"Seconds to forecast these windows: {', '.join(said)}."]
    if result["proposed"]:
        lines += [
            "",
            "What the search proposed, by the best validation loss of the first fold's models. "
            "Only the best is judged:",
            "",
            "| proposal | validation loss | run |",
            "|---|---:|---|",
        ]
        lines += [_proposal(row) for row in result["proposed"]]
    if done:
        lines += ["", "Rivals on the first trial's windows:", ""]
        lines += ["| | RankIC (s.e.) | accuracy | ECE |", "|---|---:|---:|---:|"]
        for rival in done[0]["rivals"]:
            lines.append(
                f"| {_cell(rival['name'])} | {_ic(rival)} | {rival['accuracy']:.2%} "
                f"| {rival['ece']:.4f} |"
            )
        one = done[0]
        lines += [
            "",
            f"{one['n']} windows on {one['dates']} dates, seed {one['seed']}, snapshot "
            f"{one['snapshot'][:12]}, base spec {result['base_digest'][:12]}, "
            f"finished {one['finished']}, on {one['device']}.",
            "",
            f"`{result['command']}`",
        ]
    return "\n".join(lines) + "\n"


def _rows(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The first trial, its repeats with other seeds, then the trials compared with it."""
    first, *others = result["trials"]
    return [first, *result["repeats"], *others]


def _line(row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"| {_cell(row['name'])} | failed: {_cell(row['failed'])} | | | | | | | | | |"
    interval, against = row["accuracy_interval"], row.get("against_first", {})
    gap, p = against.get("difference"), against.get("adjusted_p")
    cells = [
        _cell(row["name"]),
        _ic(row),
        f"{row['accuracy']:.2%}",
        "-" if interval is None else f"{interval[0]:.2%} to {interval[1]:.2%}",
        f"{row['ece']:.4f}",
        "-" if row.get("ece_uncalibrated") is None else f"{row['ece_uncalibrated']:.4f}",
        f"{row['brier']:.4f}",
        "" if gap is None else f"{gap:+.4f}",
        "" if p is None else f"{p:.3f}",
        f"{row['hours']:.2f}",
        row["run"],
    ]
    return "| " + " | ".join(cells) + " |"


def _proposal(row: Mapping[str, Any]) -> str:
    loss = row["validation_loss"]
    if row["failed"] is not None:
        return f"| {_cell(row['name'])} | failed: {_cell(row['failed'])} | |"
    shown = "-" if loss is None else f"{loss:.5f}"
    return f"| {_cell(row['name'])} | {shown} | {row['run']} |"


def _ic(row: Mapping[str, Any]) -> str:
    if row["rank_ic"] is None:
        return "-"
    error = row["rank_ic_se"]
    return f"{row['rank_ic']:+.4f}" + ("" if error is None else f" ({error:.4f})")


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def plot(result: Mapping[str, Any]) -> Image:
    """RankIC of every trial with its interval, the first trial's value as a line."""
    from vnquant.report.svg import BLUE, GREY, image

    rows = [r for r in _rows(result) if r.get("rank_ic") is not None]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(reversed(rows)):
            if row["rank_ic_interval"] is not None:
                axes.plot(row["rank_ic_interval"], [place, place], color=GREY)
            axes.plot(row["rank_ic"], place, "o", color=BLUE)
        if rows:
            axes.axvline(rows[0]["rank_ic"], color=GREY, linestyle=":")
        axes.set_yticks(range(len(rows)), [str(n) for n in range(len(rows), 0, -1)])
        axes.set_xlabel("RankIC and its interval, by number of trial")

    said = "; ".join(f"{r['name']} {r['rank_ic']:+.3f}" for r in rows)
    return image(f"RankIC of the trials: {said}.", draw)
