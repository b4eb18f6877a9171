"""Matplotlib figures as images inside a page: no files, no network, the same bytes every time."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#007a5a", "#6b7280"
"""Okabe and Ito's palette (2008), told apart by colour-blind readers too."""

INCHES = (4.7, 2.9)
"""Small, so that the text stays readable when the image is as wide as a phone."""

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
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        axes: list[Axes] = list(
            figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        )
        draw(*axes)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    encoded = base64.b64encode(written.getvalue()).decode("ascii")
    return Image(f"data:image/svg+xml;base64,{encoded}", alternative)
