"""The calibration of an ensemble's probabilities, written into the metadata of its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vnquant.evaluation.recalibration import CALIBRATION, learned
from vnquant.features.windows import Windows
from vnquant.inference.predictor import load_models, predict, with_outcomes
from vnquant.stages.context import Context
from vnquant.workspace import write_json


def calibrate(ctx: Context, folder: Path, windows: Sequence[Windows]) -> None:
    """Learn one curve for all models in a folder from the validation part of ``windows``.

    To be called when the members have their weights. The curve is learned from what the members
    say, whatever curve they carry already: doing it again writes the same. Where there are too few
    windows to learn from, no model carries one.
    """
    ends = {w.symbol: w.validation for w in windows}
    models = load_models(folder, ends)
    said = predict(models, ctx.panel, ends, device=ctx.profile.torch_device)
    curve = learned(with_outcomes(said, ctx.panel, ends))
    found = {} if curve is None else {CALIBRATION: asdict(curve)}
    for model in models:
        meta = {k: v for k, v in model.meta.items() if k != CALIBRATION} | found
        if meta != model.meta:
            write_json(folder / f"{model.symbol}.m{model.member}.json", meta)
