"""`--symbols FPT VCB HPG`, which click itself refuses."""

from __future__ import annotations

import pytest

from vnquant.argv import normalise


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("train --symbols FPT VCB --epochs 3", "train --symbols FPT --symbols VCB --epochs 3"),
        ("train --symbols FPT,VCB HPG", "train --symbols FPT --symbols VCB --symbols HPG"),
        ("train --symbols=FPT VCB", "train --symbols FPT --symbols VCB"),
        ("train --symbols FPT --symbols VCB", "train --symbols FPT --symbols VCB"),
        ("train --epochs 3 --symbols", "train --epochs 3 --symbols"),
        ("registry list", "registry list"),
        ("x -- --symbols A B", "x -- --symbols A B"),
        ("", ""),
    ],
)
def test_variadic_options(given: str, wanted: str) -> None:
    assert normalise(given.split()) == wanted.split()
