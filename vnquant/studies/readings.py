"""Forecasts from a finished walk-forward's models, timed: as they are, in int8, or moved."""

from __future__ import annotations

import time
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from vnquant.evaluation.statistics import rises
from vnquant.features.windows import Windows
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.inference.variants import VARIANTS
from vnquant.stages.context import Context

Floats = npt.NDArray[np.float64]
CPU = torch.device("cpu")
"""Deployed forecasts are made on ordinary machines; int8 exists only there."""
Timed = Literal["float32", "int8", "threshold"]
"""Every `vnquant.studies.definition.Reading` that is not what the walk-forward has kept."""
GRID = np.round(np.arange(0.40, 0.601, 0.005), 3)
"""Thresholds that are tried. Further out nearly all forecasts would be the same."""


def read(ctx: Context, how: Timed) -> tuple[pd.DataFrame, float]:
    """The forecast table of every fold, with outcomes and ``fold``, and the seconds it took.

    Args:
        how: float32: as they are; int8: weights of linear layers as 8-bit integers
            (`vnquant.inference.variants`); threshold: see `best_threshold`.
    """
    parts, seconds = [], 0.0
    _ = ctx.profile  # opens it: torch has its threads then, though nothing was trained here
    for fold, windows in ctx.folds.items():
        folder = ctx.stage("walk_forward") / "models" / f"fold-{fold}"
        there = [w for w in windows if any(folder.glob(f"{w.symbol}.m*.safetensors"))]
        ends = _ends(there, "test")
        if not ends:
            continue
        models = load_models(folder, ends)
        build = VARIANTS["int8" if how == "int8" else "eager"]
        began = time.perf_counter()
        table = predict(models, ctx.panel, ends, device=CPU, build=build)
        seconds += time.perf_counter() - began
        if how == "threshold":
            earlier = _ends(there, "validation")
            known = predict(load_models(folder, earlier), ctx.panel, earlier, device=CPU)
            known = with_outcomes(known, ctx.panel, earlier)
            threshold = best_threshold(known["p_up"].to_numpy(np.float64), rises(known))
            ctx.events.emit("threshold", fold=fold, value=threshold)
            table["p_up"] = moved(table["p_up"].to_numpy(np.float64), threshold)
        parts.append(with_outcomes(table, ctx.panel, ends).assign(fold=fold))
    return pd.concat(parts, ignore_index=True), seconds


def _ends(windows: list[Windows], part: str) -> dict[str, Any]:
    return {w.symbol: getattr(w, part) for w in windows if len(getattr(w, part))}


def best_threshold(p: Floats, up: npt.NDArray[np.bool_]) -> float:
    """Of `GRID` the one above which "up" was right most often; of equals the nearest to 0.5.

    Args:
        p: stated probabilities of validation windows ``[N]``, never of the test part. up: ``[N]``.
    """
    right = [float(np.mean((p > t) == up)) for t in GRID]
    best = GRID[np.isclose(right, max(right))]
    return float(best[np.abs(best - 0.5).argmin()])


def moved(p: Floats, threshold: float) -> Floats:
    """Probabilities that are above 0.5 where ``p`` was above the threshold, in the same order."""
    odds = p / np.maximum(1 - p, 1e-12) * (1 - threshold) / threshold
    return np.asarray(odds / (1 + odds))
