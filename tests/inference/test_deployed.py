"""What a forecast from a run's own panel loads before it computes."""

from __future__ import annotations

import subprocess
import sys


def test_opening_models_loads_nothing_that_only_reading_prices_needs() -> None:
    code = "import sys, vnquant.inference.deployed; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "vnquant.inference.predictor" in loaded
    assert not loaded & {"pandera", "sklearn", "scipy", "vnquant.market.quality"}
