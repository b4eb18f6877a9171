"""Probabilities of a rise made true to what happened, by a curve fitted on earlier data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vnquant.evaluation.statistics import rises

Floats = npt.NDArray[np.float64]

EDGE = 1e-6
LEAST = 100
"""Rows, and a tenth of them of each outcome, below which no curve is fitted."""


@dataclass(frozen=True)
class Curve:
    """Platt's scaling (1999): ``logit(p') = intercept + slope logit(p)``, from ``n`` rows."""

    intercept: float
    slope: float
    n: int

    def __call__(self, p: Floats) -> Floats:
        """Calibrated probabilities of the same shape."""
        z = self.intercept + self.slope * _logit(p)
        return np.asarray(1.0 / (1.0 + np.exp(-z)))


def fit(p: Floats, up: npt.NDArray[np.bool_]) -> Curve | None:
    """The curve of greatest likelihood; None for too few rows, or one outcome only.

    A slope of 0 would say that the probabilities carry nothing; it is never made negative, which
    would turn every forecast around on the strength of one validation year.

    Args:
        p: stated probabilities of the validation part ``[N]``, never of the test part.
        up: whether the sum rose.
    """
    rises = int(up.sum())
    if len(p) < LEAST or min(rises, len(p) - rises) < LEAST // 10:
        return None
    from sklearn.linear_model import LogisticRegression  # a second that a forecast need not wait

    model = LogisticRegression(C=np.inf).fit(_logit(p)[:, None], up)
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < 0:
        share = rises / len(p)
        slope, intercept = 0.0, float(np.log(share / (1 - share)))
    return Curve(intercept, slope, len(p))


def learned(known: pd.DataFrame) -> Curve | None:
    """`fit` on a forecast table of the validation part."""
    return fit(known["p_up"].to_numpy(np.float64), rises(known))


def stored(verdict: Mapping[str, Any] | None) -> Curve | None:
    """The curve of a verdict.json, if there is one."""
    found = (verdict or {}).get("calibration")
    return found and Curve(found["intercept"], found["slope"], found["n"])


def _logit(p: Floats) -> Floats:
    inside = np.clip(p, EDGE, 1 - EDGE)
    return np.asarray(np.log(inside / (1 - inside)))
