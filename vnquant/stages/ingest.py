"""Stage ingest: raw bars in, clean bars, quarantine and a readable quality report out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vnquant.errors import DataError
from vnquant.market.index import levels_for
from vnquant.market.quality import inspect
from vnquant.market.sessions import sessions
from vnquant.market.sources import open_source, snapshot_hash
from vnquant.stages.context import Context
from vnquant.workspace import write_bytes, write_json, written_aside


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    return ctx.spec.data.snapshot in (None, marker["snapshot"])


def load_raw(ctx: Context) -> tuple[pd.DataFrame, pd.DataFrame | None, str]:
    """The spec's bars, the index's levels if its features need them, and their snapshot.

    Raises:
        DataError: the prices are not those that the spec was made from, or lack the index.
    """
    spec = ctx.spec
    raw = ctx.raw
    if raw is None:
        source = open_source(spec.data.source, ctx.options.prices)
        raw = source.load(spec.symbols, start=spec.data.start, end=spec.data.end)
    data, prices = spec.data, ctx.options.prices
    index = levels_for(spec.features.name, prices, data.start, data.end)
    found = snapshot_hash(raw, index)
    if spec.data.snapshot is not None and found != spec.data.snapshot:
        raise DataError(
            f"the prices hash to {found[:12]}, the spec was made from {spec.data.snapshot[:12]}",
            where=str(ctx.options.prices or spec.data.source),
            fix="give the file the spec was made from, or start a new run with `vnquant train`",
        )
    return raw, index, found


def run(ctx: Context) -> dict[str, Any]:
    raw, index, snapshot = load_raw(ctx)
    ctx.events.progress("ingest", 1, 3, "checking")
    calendar = sessions(raw)
    result = inspect(raw, calendar, max_gap=ctx.spec.windows.max_gap)
    if result.clean.empty:
        raise DataError(
            "no bar of any symbol passed the quality checks",
            where=str(ctx.options.prices or ctx.spec.data.source),
            fix="read the counts: " + ", ".join(f"{k} {v}" for k, v in result.counts.items() if v),
        )
    stage = ctx.stage("ingest")
    ctx.events.progress("ingest", 2, 3, "writing")
    frames = {"bars": result.clean, "quarantine": result.quarantined, "breaks": result.breaks}
    if index is not None:
        frames["index"] = index
    for name, frame in frames.items():
        with written_aside(stage / f"{name}.parquet") as aside:
            frame.to_parquet(aside, index=False, compression="zstd")
    write_json(stage / "calendar.json", [str(d) for d in np.datetime_as_string(calendar, unit="D")])
    write_json(stage / "quality.json", result.to_dict())
    write_bytes(stage / "quality.md", result.to_markdown().encode())
    ctx.events.progress("ingest", 3, 3)
    kept = set(result.clean["symbol"].unique())
    failed = {
        s: "no usable bar after the quality checks" for s in ctx.spec.symbols if s not in kept
    }
    counts = {k: int(v) for k, v in result.counts.items() if v}
    ctx.events.emit("quality", bars=len(raw), kept=len(result.clean), counts=counts)
    return {
        "snapshot": snapshot,
        "bars": len(raw),
        "kept": len(result.clean),
        "quarantined": len(result.quarantined),
        "breaks": len(result.breaks),
        "first": str(raw["date"].min().date()),
        "last": str(raw["date"].max().date()),
        "failed": failed,
        "provenance": {"snapshot": snapshot},
    }
