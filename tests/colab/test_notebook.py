"""The notebook itself, top to bottom, executed by nbclient inside an emulated machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.colab.conftest import ROOT, TOOL, Emulator
from vnquant.host.colab.bundle import write_wheel
from vnquant.market.synthetic import SyntheticMarket

NOTEBOOK = ROOT / "notebooks" / "vnquant_colab.ipynb"
DRIVE = Path("/content/drive/MyDrive/vnquant")
# The parameters cell, replaced as papermill does it; the other cells are as they are.
PARAMETERS = """
symbols = ["FPT", "VCB"]
settings = {"preset": "small", "start": "2019-01-01", "validation_start": "2021-06-01",
            "test_start": "2022-06-01", "epochs": 1,
            "words": ["--threads", "1", "--device", "cpu"]}
"""
JOB = """
import json, os, nbformat
from nbclient import NotebookClient
os.environ.update(json.loads({environment!r}))
book = nbformat.read("/content/notebook.ipynb", 4)
try:
    NotebookClient(book, timeout=600, kernel_name="python3").execute()
finally:
    nbformat.write(book, "/content/{out}")
"""


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_the_notebook_holds_no_outputs_and_no_path_of_ours() -> None:
    code = [c for c in cells() if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    assert sum("parameters" in c["metadata"].get("tags", ()) for c in code) == 1
    paths = set(re.findall(r"(?<![\w.:])/[a-z]\w+/", NOTEBOOK.read_text(encoding="utf-8")))
    assert paths == {"/content/"}
    assert len({c["id"] for c in cells()}) == len(cells())


@pytest.mark.skipif(not (TOOL / "bin" / "python").exists(), reason="python tools/colab.py --test")
def test_the_notebook_is_valid() -> None:
    check = "import nbformat, sys; nbformat.validate(nbformat.read(sys.argv[1], 4))"
    subprocess.run([str(TOOL / "bin" / "python"), "-c", check, str(NOTEBOOK)], check=True)


def colab(emulator: Emulator, *words: str) -> str:
    done = subprocess.run(
        [str(emulator.colab), *words], capture_output=True, text=True, timeout=900, check=False
    )
    return done.stdout + done.stderr


def run_all(emulator: Emulator, place: Path, out: str) -> str:
    """Runtime > Run all; returns what the cells have printed."""
    made = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    for cell in made["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            cell["source"] = PARAMETERS
    (place / "notebook.ipynb").write_text(json.dumps(made))
    # A real machine has torch in the kernel's own Python; the emulator's has none.
    environment = json.dumps({"VNQUANT_COLAB_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"})
    (place / "job.py").write_text(JOB.format(environment=environment, out=out))
    colab(emulator, "upload", "-s", "nb", str(place / "notebook.ipynb"), "/content/notebook.ipynb")
    said = colab(emulator, "exec", "-s", "nb", "-f", str(place / "job.py"))
    until = time.monotonic() + 60
    while not Path("/content", out).exists() and time.monotonic() < until:
        time.sleep(0.2)
    assert Path("/content", out).exists(), said
    book = json.loads(Path("/content", out).read_text())
    texts = []
    for cell in book["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                raise AssertionError("".join(texts) + "\n".join(output["traceback"]))
            texts += [*output.get("text", []), *output.get("data", {}).get("text/plain", [])]
    return "".join(texts)


@pytest.mark.colab
def test_all_cells_run_and_after_a_reclaim_run_again(emulator: Emulator, tmp_path: Path) -> None:
    colab(emulator, "new", "-s", "nb")
    colab(emulator, "drivemount", "-s", "nb")
    (DRIVE / "data").mkdir(parents=True)
    SyntheticMarket().load(["FPT", "VCB"]).to_parquet(DRIVE / "data" / "prices.parquet")
    write_wheel(DRIVE / "wheels")
    first = run_all(emulator, tmp_path, "first.ipynb")
    assert "GPU: none" in first
    assert "is finished" in first
    (kept,) = (DRIVE / "models").iterdir()
    assert (kept / "report" / "report.html").exists()
    before = {p.name: p.read_bytes() for p in kept.glob("train/models/*.safetensors")}
    assert len(before) == 6
    # The machine is taken away; Drive stays.
    emulator.control("reclaim")
    colab(emulator, "stop", "-s", "nb")
    colab(emulator, "new", "-s", "nb")
    colab(emulator, "drivemount", "-s", "nb")
    assert not Path("/content/vnquant").exists()
    second = run_all(emulator, tmp_path, "second.ipynb")
    assert "is finished" in second
    assert "epoch" not in second
    after = {p.name: p.read_bytes() for p in kept.glob("train/models/*.safetensors")}
    assert after == before
