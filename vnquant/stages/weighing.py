"""The weights of an ensemble's members, written into the metadata of their models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vnquant.features.windows import Windows
from vnquant.inference.predictor import load_models, member_forecasts
from vnquant.inference.weights import Floats, inverse_loss, stacked
from vnquant.stages.context import Context
from vnquant.workspace import read_json, write_json


class _Known(NamedTuple):
    """A symbol's validation part, in units of its own daily volatility."""

    members: list[int]
    forecasts: Floats
    outcomes: Floats
    sessions: np.ndarray


def weigh(ctx: Context, folder: Path, windows: Sequence[Windows]) -> None:
    """Learn the weights of the models in a folder from the validation part of ``windows``.

    No member was fitted to these windows, though each stopped where it did best on them. Equal
    weights are written nowhere. Doing it again writes the same.
    """
    how = ctx.spec.ensemble.weights
    if how == "equal":
        return
    ends = {w.symbol: w.validation for w in windows}
    known = _known(ctx, folder, ends)
    if how == "stacked":
        shared = stacked(
            np.concatenate([k.forecasts for k in known.values()]),
            np.concatenate([k.outcomes for k in known.values()]),
            np.concatenate([k.sessions for k in known.values()]),
            ctx.spec.windows.purge,
        )
    for symbol, k in known.items():
        weights = shared if how == "stacked" else inverse_loss(k.forecasts, k.outcomes)
        for member, weight in zip(k.members, weights, strict=True):
            path = folder / f"{symbol}.m{member}.json"
            write_json(path, {**read_json(path), "weight": float(weight)})


def _known(ctx: Context, folder: Path, ends: dict[str, np.ndarray]) -> dict[str, _Known]:
    panel, found = ctx.panel, {}
    models = load_models(folder, ends)
    said = member_forecasts(models, panel, ends, device=ctx.profile.torch_device)
    for symbol, members in said.items():
        members = sorted(members, key=lambda m: m.model.member)
        scale, rows = members[0].model.meta["scaler"]["target_scale"], ends[symbol]
        found[symbol] = _Known(
            [m.model.member for m in members],
            np.stack([m.forecast.mu.sum(1) for m in members], axis=1) / scale,
            panel.targets[rows].astype(np.float64).sum(1) / scale,
            panel.session[rows].astype(np.int64),
        )
    return found
