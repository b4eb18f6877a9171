"""Matplotlib figures as images inside a page: no files, no network, the same bytes every time."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#007a5a", "#6b7280"
"""Okabe and Ito's palette (2008), told apart by colour-blind readers too."""

INCHES = (4.7, 2.9)
"""Small, so that the text stays readable when the image is as wide as a phone."""
MARGINS = {"left": 0.72, "right": 0.08, "top": 0.3, "bottom": 0.48}
"""Inches around the axes. Stated, because finding them would double the time of a plot."""

STYLE: Any = {
    # Without a salt the ids inside are random.
    "svg.hashsalt": "vnquant",
    # Text stays text: a tenth of the size of outlines.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    # A dollar sign in a label is a dollar sign.
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "xtick.bottom": False,
    "ytick.left": False,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "date.converter": "concise",
}


@dataclass(frozen=True)
class Image:
    """A plot for the page.

    Attributes:
        source: a ``data:`` address. alternative: what somebody who cannot see it should know.
    """

    source: str
    alternative: str


def image(
    alternative: str,
    draw: Callable[..., None],
    *,
    heights: tuple[float, ...] = (1.0,),
    inches: tuple[float, float] = INCHES,
) -> Image:
    """Draw one figure; as an image it can run no script and load nothing.

    Args:
        draw: is handed one `Axes` for each of ``heights``, one below the other.
    """
    # From the library's defaults, not from what this user's matplotlibrc makes of them.
    with style.context(STYLE, after_reset=True):
        figure = Figure(figsize=inches)
        FigureCanvasSVG(figure)
        axes: list[Axes] = list(
            figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        )
        width, height = inches
        figure.subplots_adjust(
            left=MARGINS["left"] / width,
            right=1 - MARGINS["right"] / width,
            top=1 - MARGINS["top"] / height,
            bottom=MARGINS["bottom"] / height,
            hspace=0.12,
        )
        draw(*axes)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    encoded = base64.b64encode(compact(written.getvalue().decode("utf-8")).encode("utf-8"))
    return Image(f"data:image/svg+xml;base64,{encoded.decode('ascii')}", alternative)


def compact(svg: str) -> str:
    """The same picture in under half the bytes.

    Layout between the tags goes, what is about the file and not the picture goes, and coordinates
    (points) keep two decimals. Text, such as the labels of an axis, is left as it is.
    """
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg)
    return re.sub(r"<[^>]+>", _short, svg).strip()


def _short(tag: re.Match[str]) -> str:
    text = re.sub(r"\s+", " ", tag.group())
    text = re.sub(r' id="(?:text|line2d|[xy]tick|patch)_\d+"', "", text)  # nothing refers to these
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    return re.sub(r"(\.\d\d)\d+", r"\1", text)
