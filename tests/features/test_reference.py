from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vnquant.features.catalogue import SETS
from vnquant.features.reference import page

COMMITTED = Path(__file__).parents[2] / "docs" / "features.md"


def test_the_committed_page_is_the_generated_one():
    assert COMMITTED.read_text(encoding="utf-8") == page(), (
        "regenerate it: python -m vnquant.features.reference > docs/features.md"
    )


def test_the_command_prints_the_page():
    command = [sys.executable, "-m", "vnquant.features.reference"]
    done = subprocess.run(
        command, cwd=COMMITTED.parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout == page()


def test_every_feature_has_one_row_with_all_its_parts():
    rows = [line for line in page().splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) == len(SETS["v2"])
    for i, (row, feature) in enumerate(zip(rows, SETS["v2"], strict=True), start=1):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells == [str(i), f"`{feature.name}`", feature.formula, str(feature.warm_up)]
