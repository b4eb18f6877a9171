"""The plots of a report. Names from outside stay out of them: they belong to the page around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vnquant.evaluation.calibration import Z80, wilson
from vnquant.report.sources import Training
from vnquant.report.svg import BLUE, GREEN, GREY, ORANGE, Image, image

Z50 = 0.6744897501960817
"""A Gaussian lies within ± this many deviations with probability 50 %."""
SMOOTHED = 20
"""Sessions in the moving mean of the correlations: about a month."""
MEMBERS = (BLUE, ORANGE, GREEN)


def training_curve(models: Sequence[Training]) -> Image:
    """Loss per epoch of one symbol's members: training dashed, validation solid, best dotted."""

    def draw(axes: Axes) -> None:
        for number, model in enumerate(models):
            colour = MEMBERS[number % len(MEMBERS)]
            train, validation = np.array(model.history).T
            epochs = np.arange(1, len(train) + 1)
            line = axes.plot(epochs, train, "--", color=colour, marker=_marker(epochs))
            line[0].set_fillstyle("none")
            ending = " (diverged)" if model.status == "diverged" else ""
            best = [] if model.best_epoch is None else [model.best_epoch]
            axes.plot(
                *(epochs, validation),
                color=colour,
                marker="o",
                markersize=4,
                markevery=best,
                label=f"member {model.member}{ending}",
            )
        _epochs(axes, max(len(m.history) for m in models))
        _legend_above(axes)

    best = min(v for m in models for _, v in m.history if np.isfinite(v))
    return image(f"Best validation loss {best:.4f}.", draw)


def training_overview(models: Sequence[Training]) -> Image:
    """Median loss per epoch over all models still training, with the middle 80 %."""
    longest = max(len(m.history) for m in models)
    losses = np.full((len(models), longest, 2), np.nan)
    for row, model in zip(losses, models, strict=True):
        row[: len(model.history)] = model.history
    losses[~np.isfinite(losses)] = np.nan  # a diverged model's last epoch
    low, median, high = np.nanquantile(losses, [0.1, 0.5, 0.9], axis=0)

    def draw(axes: Axes) -> None:
        epochs = np.arange(1, longest + 1)
        for part, (name, colour) in enumerate((("training", ORANGE), ("validation", BLUE))):
            axes.plot(epochs, median[:, part], color=colour, marker=_marker(epochs), label=name)
            band = (low[:, part], high[:, part])
            if longest == 1:  # one epoch has no width that a band could fill
                axes.vlines(epochs, *band, color=colour, alpha=0.4)
            axes.fill_between(epochs, *band, color=colour, alpha=0.15, linewidth=0)
        _epochs(axes, longest)
        _legend_above(axes)

    said = f"Median validation loss of {len(models)} models: "
    said += f"{median[0, 1]:.4f} after the first epoch, {median[-1, 1]:.4f} after the last."
    return image(said, draw)


def fan(row: dict[str, Any], past: pd.DataFrame | None) -> Image:
    """Past closes, the forecast prices, and where 50 % and 80 % of outcomes are expected.

    Args:
        row: of ``forecast.json``; the bands need its volatility_1..H.
        past: date and close (thousand VND), sorted; the last one is the forecast's own session.
    """
    horizon = sum(str(k).startswith("price_") for k in row)
    ahead = np.arange(horizon + 1)
    close = float(row["close"])
    prices = [close, *(float(row[f"price_{h}"]) for h in ahead[1:])]
    median = close * np.cumprod([1.0, *(1.0 + float(row[f"return_{h}"]) for h in ahead[1:])])
    daily = [float(row.get(f"volatility_{h}", np.nan)) for h in ahead[1:]]

    def draw(axes: Axes) -> None:
        if past is not None and len(past):
            axes.plot(np.arange(1 - len(past), 1), past["close"], color=GREY, label="close")
        if np.isfinite(daily).all():  # runs from before these were kept have no bands
            spread = np.sqrt(np.cumsum(np.square([0.0, *daily])))
            for z, alpha, label in ((Z80, 0.15, "80 %"), (Z50, 0.3, "50 %")):
                band = (median * np.exp(-z * spread), median * np.exp(z * spread))
                axes.fill_between(ahead, *band, color=BLUE, alpha=alpha, linewidth=0, label=label)
        axes.plot(ahead, prices, color=BLUE, marker=".", label="forecast")
        axes.set_xlabel("sessions after the last one")
        axes.set_ylabel("price, thousand VND")
        _legend_above(axes)

    return image(
        f"Last close {close:.2f}, forecast {prices[-1]:.2f} thousand VND after "
        f"{horizon} sessions; expected {row['expected_return']:+.2%}, "
        f"volatility {row['volatility']:.2%}.",
        draw,
    )


def reliability(table: Sequence[dict[str, Any]], ece: float | None) -> Image:
    """Stated against observed frequency of a rise, with Wilson's interval of each bin."""
    stated, observed = (np.array([row[k] for row in table]) for k in ("stated", "observed"))
    ends = np.array([wilson(row["observed"], row["n"]) for row in table]).T

    def draw(axes: Axes) -> None:
        axes.axline((0.5, 0.5), slope=1, color=GREY, linestyle=":", label="calibrated")
        error = np.abs(ends - observed)
        axes.errorbar(
            stated, observed, yerr=error, fmt="o", color=BLUE, capsize=2, label="observed, 95 %"
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axis.set_major_locator(MaxNLocator(6))
        axes.margins(0.08)
        axes.set_xlabel("stated probability of a rise")
        axes.set_ylabel("how often it rose")
        _legend_above(axes)

    error = "unknown" if ece is None else f"{ece:.2%}"
    return image(f"{len(table)} bins; expected calibration error {error}.", draw)


def information(table: pd.DataFrame) -> Image:
    """RankIC of every date and its moving mean over `SMOOTHED` dates."""
    known = table[np.isfinite(table["rank_ic"].to_numpy(np.float64))]
    values = known["rank_ic"].astype(float)
    smooth = values.rolling(SMOOTHED, min_periods=SMOOTHED // 2).mean()

    def draw(axes: Axes) -> None:
        dates = _dates(known)
        axes.plot(dates, values, ".", color=GREY, alpha=0.45, markersize=3, label="of the date")
        axes.plot(dates, smooth, color=BLUE, label=f"mean of {SMOOTHED} dates")
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.axhline(
            float(values.mean()), color=ORANGE, linestyle="--", label=f"mean {values.mean():+.3f}"
        )
        axes.set_ylabel("RankIC")
        _legend_above(axes)

    positive = float((values > 0).mean())
    return image(
        f"RankIC over {len(values)} dates: mean {values.mean():+.4f}, above 0 on {positive:.0%}.",
        draw,
    )


def equity(table: pd.DataFrame) -> Image:
    """Equity beside the naive backtest and VNINDEX, and below it the drawdown."""

    def draw(upper: Axes, lower: Axes) -> None:
        dates = _dates(table)
        names = {"equity": ("net of all rules", BLUE, "-"), "naive": ("naive", ORANGE, "--")}
        names["benchmark"] = ("VNINDEX", GREY, "-")
        for column, (label, colour, line) in names.items():
            values = table[column].to_numpy(np.float64) if column in table else np.array([np.nan])
            if np.isfinite(values).any():
                upper.plot(dates, values, line, color=colour, label=label)
        upper.set_ylabel("equity, start 1")
        _legend_above(upper)
        # Written as a loss (below 0) or as a depth (above 0): shown as a loss either way.
        fallen = -np.abs(table["drawdown"].to_numpy(np.float64))
        lower.fill_between(dates, fallen, 0.0, color=ORANGE, alpha=0.4, linewidth=0)
        lower.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        lower.yaxis.set_major_locator(MaxNLocator(3))
        lower.set_ylabel("drawdown")

    last, depth = float(table["equity"].iloc[-1]), float(table["drawdown"].abs().max())
    said = f"Equity ends at {last:.3f} of its start; deepest drawdown {depth:.1%}."
    return image(said, draw, heights=(2.2, 1.0), inches=(4.7, 3.8))


def _dates(table: pd.DataFrame) -> npt.NDArray[np.datetime64]:
    return pd.to_datetime(table["date"]).to_numpy()


def _legend_above(axes: Axes) -> None:
    """Where no curve can be hidden by it."""
    axes.legend(
        ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2, columnspacing=1.4
    )


def _epochs(axes: Axes, last: int) -> None:
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")


def _marker(epochs: npt.NDArray[np.int64]) -> str:
    """A line of one point would be invisible."""
    return "o" if len(epochs) == 1 else ""
