"""What the benchmark of the Colab path counts, on made folders and turns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.colab import page, span
from benchmarks.colab_runs import Drive, Traffic
from vnquant.host.colab.command import Colab
from vnquant.host.process import Finished


def test_a_file_that_is_written_again_counts_again_and_an_unchanged_one_does_not(
    tmp_path: Path,
) -> None:
    drive = Drive(tmp_path)
    one, two = tmp_path / "a" / "one", tmp_path / "two"
    one.parent.mkdir()
    one.write_bytes(b"12345")
    two.write_bytes(b"1")
    (tmp_path / ".two.aside").write_bytes(b"not there yet")
    drive.look()
    drive.look()
    one.write_bytes(b"12345")
    os.utime(one, (1, 1))
    drive.look()
    assert (drive.written, drive.files) == (11, 3)


def test_payload_is_counted_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up, down = tmp_path / "up", tmp_path / "down"
    up.write_bytes(b"123")

    def run(_: Colab, *words: str, **__: Any) -> Finished:
        if words[0] == "download":
            down.write_bytes(b"12345")
        return Finished(0, "answer" if words[0] == "exec" else "", "")

    monkeypatch.setattr(Colab, "run", run)
    colab, traffic = Colab("s", tmp_path / "s.json"), Traffic()
    with traffic.counting():
        colab.on("upload", str(up), "there")
        colab.on("download", "there", str(down))
        colab.on("exec", "-f", str(up), "--timeout", "60")
        colab.run("usage")
    assert (traffic.up, traffic.down, traffic.commands) == (6, 11, 4)
    assert Colab.run is run


def test_the_page_compares_within_a_round() -> None:
    part = {"before": 1.0, "job": 1.0, "after": 1.0}
    more = dict.fromkeys(
        ("packed and allocated", "made ready", "noticed and fetched", "released"), 1.0
    )
    more["controller's processor seconds"] = 1.0
    result = {
        "turns": {
            "local": [{"whole": w, **part} for w in (1.0, 10.0)],
            "colab": [{"whole": w, **part, **more} for w in (3.0, 40.0)],
        },
        "recoveries": [{"noticed": 2.0, "whole": 5.0}],
        "moved": [{"to Drive": 7}],
        "poll": 5,
        "epochs": 3,
        "load": 1.0,
        "to_install": 0,
        "symbols": ("FPT",),
    }
    text = "\n".join(page(result))
    assert "16.0 (2.0 to 30.0) s, 3.50 (3.00 to 4.00) times the local whole" in text
    assert span([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"
