"""Stage features: clean bars to one resident panel of features and the targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vnquant.errors import DataError
from vnquant.evaluation import leaks
from vnquant.features.panel import build_panel
from vnquant.features.windows import split
from vnquant.stages.context import Context
from vnquant.workspace import read_json, write_json


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return bool(marker.get("snapshot") == ctx.marker("ingest")["snapshot"])


def run(ctx: Context) -> dict[str, Any]:
    ingested = ctx.marker("ingest")
    clean = pd.read_parquet(ctx.stage("ingest") / "bars.parquet")
    calendar = np.array(read_json(ctx.stage("ingest") / "calendar.json"), dtype="datetime64[D]")
    index = None
    if ctx.spec.features.name == "v2":
        index = pd.read_parquet(ctx.stage("ingest") / "index.parquet")
    panel = build_panel(clean, calendar, ctx.spec.windows.horizon, index)
    ctx.events.progress("features", 1, 2, "writing")
    panel.save(ctx.stage("features") / "panel")
    windows = split(panel, ctx.spec.windows)
    leaks.refuse(leaks.misaligned(panel) + leaks.overlapping(panel, windows))
    counts = {
        w.symbol: {
            "train": len(w.train),
            "validation": len(w.validation),
            "test": len(w.test),
            "latest": w.latest is not None,
        }
        for w in windows
    }
    write_json(ctx.stage("features") / "windows.json", counts)
    if not any(c["train"] for c in counts.values()):
        raise DataError(
            f"no symbol has a training window before {ctx.spec.windows.validation_start}",
            where="windows",
            fix="give a longer history or a later --validation-start",
        )
    ctx.events.progress("features", 2, 2)
    return {
        "snapshot": ingested["snapshot"],
        "rows": int(panel.features.shape[0]),
        "features": len(panel.names),
        "windows": {k: sum(c[k] for c in counts.values()) for k in ("train", "validation", "test")},
        "failed": {},
    }
