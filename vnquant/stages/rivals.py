"""The rivals of a walk-forward, made once for all of a workspace's runs that judge the same.

Trials of a study that differ only in how the model is trained have the same rivals, which take
minutes where symbols and folds are many. They lie under a digest of everything that decides them::

    WORKSPACE/rivals/<digest>.parquet   forecast tables with ``name`` and ``fold``
    WORKSPACE/rivals/<digest>.json      what they were made of, the tables' sha256; written last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vnquant import manifest
from vnquant.evaluation import baselines, boosting
from vnquant.features.windows import Windows, fit_scaler
from vnquant.stages.context import Context
from vnquant.training.checkpoint import file_sha256
from vnquant.workspace import locked, read_json, write_json, written_aside

Tables = dict[str, pd.DataFrame]
Tested = Mapping[int, Sequence[Windows]]
"""By fold, the windows of the symbols that are judged in it."""
PACKAGES = ("numpy", "pandas", "scipy", "scikit-learn", "lightgbm", "TA-Lib")


def of(ctx: Context, tested: Tested) -> Tables:
    """The forecast table of every rival with the column ``fold``, by name.

    They are read where the workspace has them, and made otherwise, or if a file is damaged. Of two
    processes that want the same, one makes them and the other waits.

    Raises:
        RetryableError: the disk is full.
    """
    made_of = _ingredients(ctx, tested)
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    folder = ctx.workspace.path / "rivals"
    table, note = folder / f"{digest}.parquet", folder / f"{digest}.json"
    with locked(folder / f"{digest}.lock"):
        kept = _intact(table, note)
        if not kept:
            note.unlink(missing_ok=True)
            with written_aside(table) as aside:
                _made(ctx, tested).to_parquet(aside, index=False, compression="zstd")
            write_json(note, {"made_of": made_of, "sha256": file_sha256(table)})
    ctx.events.emit("rivals", digest=digest, kept=kept)
    # Read in any case, so that who made them has the very tables that all others have.
    by_name = pd.read_parquet(table).groupby("name", sort=False)
    return {str(n): t.drop(columns="name").reset_index(drop=True) for n, t in by_name}


def _ingredients(ctx: Context, tested: Tested) -> dict[str, Any]:
    """Everything that decides the tables; JSON-able."""
    spec, panel = ctx.spec, ctx.stage("features").path
    assert spec.walk_forward is not None  # or there were no folds
    return {
        "snapshot": ctx.marker("ingest")["snapshot"],
        # The panel itself too: it may have been built by code that was there before today's.
        "panel": [file_sha256(panel / f"panel.{end}") for end in ("json", "safetensors")],
        # No rival's inputs fade.
        "windows": spec.windows.model_dump(mode="json", exclude={"half_life"}),
        "walk_forward": spec.walk_forward.model_dump(
            mode="json", include={"folds", "train_sessions"}
        ),
        "ridge_alpha": spec.evaluation.ridge_alpha,
        "seed": spec.training.seed if boosting.available() else None,
        "symbols": {str(fold): [w.symbol for w in windows] for fold, windows in tested.items()},
        "code": manifest.source_digest(),
        "packages": manifest.package_versions(PACKAGES),
    }


def _intact(table: Path, note: Path) -> bool:
    kept = read_json(note)
    whole = isinstance(kept, dict) and "sha256" in kept and table.exists()
    return whole and kept["sha256"] == file_sha256(table)


def _made(ctx: Context, tested: Tested) -> pd.DataFrame:
    parts: dict[str, list[pd.DataFrame]] = {}
    for done, (fold, chosen) in enumerate(tested.items()):
        ctx.events.progress("rivals", done, len(tested), f"fold {fold}")
        windows, ends = list(chosen), {w.symbol: w.test for w in chosen}
        lookback = ctx.spec.windows.lookback
        scalers = {w.symbol: fit_scaler(ctx.panel, w, lookback) for w in windows}
        given = (ctx.panel, windows, scalers, ends, ctx.spec)
        for name, table in {**baselines.compare(*given), **boosting.compare(*given)}.items():
            parts.setdefault(name, []).append(table.assign(fold=fold))
    return pd.concat(
        [pd.concat(tables).assign(name=name) for name, tables in parts.items()], ignore_index=True
    )
