"""Run an ensemble over windows of a panel, stacked by shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from vnquant.errors import DataError
from vnquant.evaluation.recalibration import CALIBRATION, Curve, stored
from vnquant.features.panel import Panel
from vnquant.features.windows import Scaler, faded, gather
from vnquant.stockformer.files import ModelFile, load_model
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.losses import split_outputs
from vnquant.stockformer.model import forward

Predict = Callable[[torch.Tensor], torch.Tensor]
"""Windows ``[M, B, T, F]`` to raw outputs ``[M, B, 2H + 1]``, for the models it was built with."""
Build = Callable[[Shape, torch.Tensor], Predict]
"""Makes a Predict from a shape and rows ``[M, P]``."""

MODELS_PER_CALL = {"cpu": 16, "cuda": 128}
"""On a CPU what a call makes should stay in the caches; a GPU waits for launches."""
WINDOWS_PER_CALL = 64


def eager(shape: Shape, rows: torch.Tensor) -> Predict:
    """The plain stacked forward pass in float32."""
    return lambda x: forward(shape, rows, x)


def load_models(
    folder: Path, symbols: Iterable[str], *, otherwise: Curve | None = None
) -> list[ModelFile]:
    """All members of the given symbols from a folder of model files.

    Args:
        otherwise: the calibration of models that carry none, as those of earlier versions.

    Raises:
        DataError: a symbol has no model there, or a file is damaged.
    """
    models: list[ModelFile] = []
    for symbol in symbols:
        paths = sorted(folder.glob(f"{symbol}.m*.safetensors"))
        if not paths:
            raise DataError(
                f"no trained model for {symbol}",
                where=str(folder),
                fix=f"train it: vnquant train --symbols {symbol}",
            )
        models += [load_model(p) for p in paths]
    if otherwise is not None:
        for model in models:
            model.meta.setdefault(CALIBRATION, asdict(otherwise))
    return models


class Group(NamedTuple):
    """Models of one shape that run in one call."""

    shape: Shape
    models: tuple[ModelFile, ...]
    call: Predict


class Forecast(NamedTuple):
    """Daily log returns, float64: of all models of a group, or of one model or ensemble."""

    mu: np.ndarray
    """``[..., B, H]``."""
    sigma: np.ndarray
    """``[..., B, H]``."""
    p_up: np.ndarray
    """``[..., B]``; the probability that their sum over the horizon is positive."""


class Member(NamedTuple):
    """What one model says about its symbol's windows."""

    model: ModelFile
    forecast: Forecast


def groups(
    models: Sequence[ModelFile],
    *,
    windows: Mapping[str, int] | None = None,
    device: torch.device | None = None,
    build: Build = eager,
) -> Iterator[Group]:
    """Build what runs the models, group after group, so that one at a time need be in memory.

    Args:
        windows: how many windows each symbol will have; similar numbers side by side pad less.
            None: the same for all.
        build: how a group is run; see `vnquant.inference.variants`.
    """
    counts = windows or {}
    device = device or torch.device("cpu")
    wide = MODELS_PER_CALL[device.type]
    by_shape: dict[Shape, list[ModelFile]] = {}
    for m in models:
        by_shape.setdefault(m.shape, []).append(m)
    for shape, members in by_shape.items():
        members = sorted(members, key=lambda m: (-counts.get(m.symbol, 0), m.symbol, m.member))
        for begin in range(0, len(members), wide):
            chunk = tuple(members[begin : begin + wide])
            rows = torch.stack([m.row for m in chunk]).to(device)
            yield Group(shape, chunk, build(shape, rows))


def scaled_windows(
    panel: Panel, scalers: Mapping[str, Scaler], ends: Mapping[str, np.ndarray], lookback: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows that some windows cover, each scaled by its symbol's own scaler.

    The newest windows of all symbols cover a few per cent of a panel; the rest is not touched.

    Returns:
        Features float32 ``[K, F]`` and, by symbol, the row in them of each window's last session.
    """
    parts, placed, total = [], {}, 0
    for symbol, scaler in scalers.items():
        rows = ends[symbol]
        covered = np.unique(np.subtract.outer(rows, np.arange(lookback)))
        parts.append(scaler.transform(panel.features[covered]))
        placed[symbol] = total + np.searchsorted(covered, rows)
        total += len(covered)
    return np.concatenate(parts), placed


@torch.inference_mode()
def member_forecasts(
    models: Sequence[ModelFile],
    panel: Panel,
    ends: Mapping[str, np.ndarray],
    *,
    device: torch.device | None = None,
    build: Build = eager,
    built: Iterable[Group] | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, list[Member]]:
    """What every member says, by symbol.

    Args:
        models: every member of every symbol in ``ends``.
        ends: panel rows of each window's last session, by symbol.
        build: how a group of models is run; see `vnquant.inference.variants`.
        built: `groups` of these models, kept by whoever forecasts more than once.
        advance: told how many model windows were computed.
    """
    device = device or torch.device("cpu")
    metas = {m.symbol: m.meta["scaler"] for m in models}  # the same for a symbol's members
    scalers = {symbol: Scaler.from_dict(meta) for symbol, meta in metas.items()}
    lookback = max(m.shape.lookback for m in models)
    scaled, placed = scaled_windows(panel, scalers, ends, lookback)
    features = torch.from_numpy(scaled).to(device)
    if built is None:
        windows = {symbol: len(rows) for symbol, rows in ends.items()}
        built = groups(models, windows=windows, device=device, build=build)
    said: dict[str, list[Member]] = {}
    for group in built:
        counts = [len(placed[m.symbol]) for m in group.models]
        scales = np.array([scalers[m.symbol].target_scale for m in group.models])
        whole = _descale(_run(group, features, placed), scales)
        for i, (m, count) in enumerate(zip(group.models, counts, strict=True)):
            forecast = Forecast(*(values[i, :count] for values in whole))
            said.setdefault(m.symbol, []).append(Member(m, forecast))
            if advance is not None:
                advance(count)
    return said


def predict(
    models: Sequence[ModelFile],
    panel: Panel,
    ends: Mapping[str, np.ndarray],
    **how: Any,
) -> pd.DataFrame:
    """Ensemble forecasts, one row for each symbol and window.

    The members count as their metadata say (``weight``), or all alike where it says nothing. So
    does the calibration of their probability (``calibration``), or none.

    Args:
        how: the other arguments of `member_forecasts`.

    Returns:
        Columns symbol, date, close, mu_h and sigma_h (daily log returns, h = 1..H), p_up (the
        probability of a rise) and p_model (the same as the members say it, uncalibrated). The
        ensemble's sigma is that of the mixture: mean variance plus variance of means.

    Raises:
        KeyError: a model's symbol is not in ``ends``.
    """
    said = member_forecasts(models, panel, ends, **how)
    known = {symbol: rows for symbol, rows in ends.items() if symbol in said}
    ensembles = [_mixture(said[symbol]) for symbol in known]
    curves = [stored(said[symbol][0].model.meta) for symbol in known]
    shown = [
        e.p_up if curve is None else curve(e.p_up)
        for e, curve in zip(ensembles, curves, strict=True)
    ]
    return _table(panel, known, ensembles, shown)


def _run(group: Group, features: torch.Tensor, placed: Mapping[str, np.ndarray]) -> torch.Tensor:
    """Raw outputs of every model on its own windows, padded with repetitions: on the CPU."""
    most = max(len(placed[m.symbol]) for m in group.models)
    index = np.stack([np.resize(placed[m.symbol], most) for m in group.models])
    rows = torch.from_numpy(index).to(features.device)
    lookback = group.shape.lookback
    fading = faded(lookback, group.shape.half_life, features.device)
    pieces = [
        group.call(gather(features, rows[:, b : b + WINDOWS_PER_CALL], lookback, fading))
        for b in range(0, rows.shape[1], WINDOWS_PER_CALL)
    ]
    return torch.cat(pieces, dim=1).float().cpu()


def _descale(raw: torch.Tensor, scales: np.ndarray) -> Forecast:
    """Raw outputs ``[M, B, 2H + 1]`` in units of returns; scales ``[M]``."""
    out, scale = split_outputs(raw), scales[:, None, None]
    return Forecast(
        out.mu.numpy().astype(np.float64) * scale,
        out.sigma.numpy().astype(np.float64) * scale,
        torch.sigmoid(out.logit.double()).numpy(),
    )


def _mixture(members: Sequence[Member]) -> Forecast:
    """The ensemble of a symbol's members."""
    share = np.array([m.model.meta.get("weight", 1.0) for m in members])
    share /= share.sum()
    mu, sigma, p_up = (np.stack(v) for v in zip(*(m.forecast for m in members), strict=True))
    mean = np.tensordot(share, mu, 1)
    spread = np.sqrt(np.tensordot(share, sigma**2 + (mu - mean) ** 2, 1))
    return Forecast(mean, spread, np.tensordot(share, p_up, 1))


def _table(
    panel: Panel,
    ends: Mapping[str, np.ndarray],
    ensembles: Sequence[Forecast],
    shown: Sequence[np.ndarray],
) -> pd.DataFrame:
    """One row for each symbol and window; ``shown`` are the ensembles' calibrated probabilities."""
    rows = np.concatenate(list(ends.values()))
    mu, sigma, p_model = (np.concatenate(values) for values in zip(*ensembles, strict=True))
    symbols = np.repeat(np.array(list(ends), dtype=object), [len(r) for r in ends.values()])
    columns = {"symbol": symbols, "date": panel.dates[rows], "close": panel.close[rows]}
    columns |= {f"mu_{h + 1}": mu[:, h] for h in range(mu.shape[1])}
    columns |= {f"sigma_{h + 1}": sigma[:, h] for h in range(mu.shape[1])}
    return pd.DataFrame(columns | {"p_up": np.concatenate(shown), "p_model": p_model})


def with_outcomes(
    forecasts: pd.DataFrame, panel: Panel, ends: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Add the realised daily log returns y_1..y_H of the same windows."""
    realised = np.concatenate([panel.targets[ends[s]] for s in forecasts["symbol"].unique()])
    out = forecasts.copy()
    for h in range(realised.shape[1]):
        out[f"y_{h + 1}"] = realised[:, h].astype(np.float64)
    return out
