"""The forecast users read: five sessions of returns and prices on valid ticks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vnquant.errors import DataError
from vnquant.features.panel import Panel
from vnquant.features.windows import Windows
from vnquant.inference.predictor import Build, eager, predict
from vnquant.market import rules
from vnquant.stockformer.files import ModelFile
from vnquant.workspace import write_bytes

STALE_SESSIONS = 5
"""A symbol whose last usable bar is older than this gets no forecast: it is suspended."""


def forecast_table(
    models: Sequence[ModelFile],
    panel: Panel,
    windows: Sequence[Windows],
    *,
    device: torch.device | None = None,
    build: Build = eager,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Forecasts after each symbol's newest session, and why some symbols have none.

    Returns:
        A table with one row per symbol: symbol, exchange, date (last session), close (thousand
        VND), return_1..H (simple daily returns), price_1..H (thousand VND, on valid ticks inside
        each day's band), volatility_1..H (deviation of each session's log return),
        expected_return and volatility (of the H sessions together), probability_up (calibrated,
        where the models carry a calibration), direction (up/down, by it) and confidence (the
        direction's probability, never under one half), and the reasons of the symbols left out.
    """
    latest, missing = {}, {}
    wanted = {m.symbol for m in models}
    newest = int(panel.session.max())
    for w in windows:
        if w.symbol not in wanted:
            continue
        if w.latest is None:
            missing[w.symbol] = "the last session ends no whole lookback"
        elif newest - int(panel.session[w.latest]) > STALE_SESSIONS:
            missing[w.symbol] = f"last traded on {panel.dates[w.latest]}"
        else:
            latest[w.symbol] = np.array([w.latest])
    if not latest:
        raise DataError(
            "no symbol can be forecast ("
            + "; ".join(f"{s}: {r}" for s, r in missing.items())
            + ")",
            where="prices",
            fix="give prices that reach the last session, with at least 120 sessions before it",
        )
    chosen = [m for m in models if m.symbol in latest]
    raw = predict(chosen, panel, latest, device=device, build=build)
    exchanges = dict(zip(panel.symbols, panel.exchanges, strict=True))
    rows = [
        _row({str(k): v for k, v in r.items()}, exchanges[r["symbol"]])
        for r in raw.to_dict(orient="records")
    ]
    return pd.DataFrame(rows), missing


def _row(raw: dict[str, Any], exchange: str) -> dict[str, Any]:
    horizon = sum(k.startswith("mu_") for k in raw)
    mu = np.array([raw[f"mu_{h + 1}"] for h in range(horizon)])
    sigma = np.array([raw[f"sigma_{h + 1}"] for h in range(horizon)])
    date = pd.Timestamp(raw["date"]).date()
    row: dict[str, Any] = {
        "symbol": raw["symbol"],
        "exchange": exchange,
        "date": str(date),
        "close": float(raw["close"]),
    }
    row |= {f"return_{h + 1}": float(np.expm1(mu[h])) for h in range(horizon)}
    price = float(raw["close"])
    path = raw["close"] * np.exp(np.cumsum(mu))
    for h in range(horizon):
        # Each day's price must be one the exchange would accept after the day before.
        low, high = rules.floor(exchange, price, date), rules.ceiling(exchange, price, date)
        price = float(np.clip(rules.round_to_tick(exchange, float(path[h]), date), low, high))
        row[f"price_{h + 1}"] = price
    row |= {f"volatility_{h + 1}": float(sigma[h]) for h in range(horizon)}
    up = float(raw["p_up"])
    return row | {
        "expected_return": float(np.expm1(mu.sum())),
        "volatility": float(np.sqrt((sigma**2).sum())),
        "probability_up": up,
        "direction": "up" if up > 0.5 else "down",
        "confidence": max(up, 1.0 - up),
    }


def to_json(table: pd.DataFrame) -> str:
    return json.dumps(table.to_dict(orient="records"), indent=2, allow_nan=False) + "\n"


def to_csv(table: pd.DataFrame) -> str:
    text: str = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text


def to_text(table: pd.DataFrame) -> str:
    """A plain table for terminals and logs."""
    horizon = sum(c.startswith("price_") for c in table.columns)
    head = ["symbol", "date", "close", *[f"+{h + 1}" for h in range(horizon)]]
    head += ["expected", "volatility", "P(up)", "direction", "confidence"]
    rows = [
        [
            r["symbol"],
            r["date"],
            f"{r['close']:.2f}",
            *[f"{r[f'price_{h + 1}']:.2f}" for h in range(horizon)],
            f"{r['expected_return']:+.2%}",
            f"{r['volatility']:.2%}",
            f"{r['probability_up']:.1%}",
            r["direction"],
            f"{r['confidence']:.1%}",
        ]
        for r in table.to_dict(orient="records")
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            v.ljust(w) if i == 0 else v.rjust(w)
            for i, (v, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    return "\n".join(lines) + "\n"


def write_forecast(folder: Path, table: pd.DataFrame) -> None:
    """forecast.json, forecast.csv and forecast.txt in a folder."""
    write_bytes(folder / "forecast.json", to_json(table).encode())
    write_bytes(folder / "forecast.csv", to_csv(table).encode())
    write_bytes(folder / "forecast.txt", to_text(table).encode())
