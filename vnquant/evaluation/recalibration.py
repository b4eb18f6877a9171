"""Probabilities of a rise made true to what happened, by a curve fitted on earlier data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.evaluation.calibration import brier_score, expected_calibration_error
from vnquant.evaluation.statistics import rises

Floats = npt.NDArray[np.float64]

EDGE = 1e-6
PERSISTENCE = 0.25
"""What is believed of the log-odds of a rise in the validation part, beside even odds.

How often shares rose in one year says next to nothing about the next one (docs/decisions.md).
Believed as it is, a year of rises makes every probability of the year after it too high.
"""
CALIBRATION = "calibration"
"""Key of a curve in a model's metadata, and in a verdict of versions that kept it there."""
LEAST = 100
"""Rows, and a tenth of them of each outcome, below which no curve is fitted."""


@dataclass(frozen=True)
class Curve:
    """``logit(p') = intercept + slope logit(p)``, from ``n`` rows."""

    intercept: float
    slope: float
    n: int

    def __call__(self, p: Floats) -> Floats:
        """Calibrated probabilities of the same shape."""
        return _expit(self.intercept + self.slope * _logit(p))


def fit(p: Floats, up: npt.NDArray[np.bool_]) -> Curve | None:
    """A curve that knows how far to trust the probabilities; None for too few rows or one outcome.

    The slope is Platt's (1999), that of greatest likelihood. The intercept is such that the mean
    probability is not the share of rises, as Platt's would make it, but `PERSISTENCE` of the way
    there from one half, in log-odds.

    A slope of 0 would say that the probabilities carry nothing; it is never made negative, which
    would turn every forecast around on the strength of one validation year.

    Args:
        p: stated probabilities of the validation part ``[N]``, never of the test part.
        up: whether the sum rose.
    """
    rises = int(up.sum())
    if len(p) < LEAST or min(rises, len(p) - rises) < LEAST // 10:
        return None
    # A second that a forecast need not wait.
    from scipy.optimize import brentq
    from sklearn.linear_model import LogisticRegression

    z = _logit(p)
    slope = max(0.0, float(LogisticRegression(C=np.inf).fit(z[:, None], up).coef_[0, 0]))
    share = rises / len(p)
    level = float(_expit(PERSISTENCE * _logit(np.array(share))))

    def excess(intercept: float) -> float:
        return float(_expit(intercept + slope * z).mean()) - level

    # There every probability lies on one side of the level.
    reach = slope * float(np.abs(z).max()) + abs(float(_logit(np.array(level)))) + 1.0
    return Curve(float(brentq(excess, -reach, reach)), slope, len(p))


def learned(known: pd.DataFrame) -> Curve | None:
    """`fit` on a forecast table of the validation part, with outcomes: on ``p_model``."""
    return fit(known["p_model"].to_numpy(np.float64), rises(known))


def stored(of: Mapping[str, Any] | None) -> Curve | None:
    """The curve in a model's metadata, if there is one.

    Earlier versions kept it in verdict.json, beside models that carry none: it is read there too.
    """
    found = (of or {}).get(CALIBRATION)
    return found and Curve(found["intercept"], found["slope"], found["n"])


def uncalibrated(table: pd.DataFrame) -> dict[str, float | None]:
    """``ece`` and ``brier`` of ``p_model``, what the members say, in a table with outcomes."""
    p, up = table["p_model"].to_numpy(np.float64), rises(table)
    return {"ece": expected_calibration_error(p, up), "brier": brier_score(p, up)}


def _expit(z: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-z)))


def _logit(p: Floats) -> Floats:
    inside = np.clip(p, EDGE, 1 - EDGE)
    return np.asarray(np.log(inside / (1 - inside)))
