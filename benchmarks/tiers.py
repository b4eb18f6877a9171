"""What the weekly run would take on Colab's cards: ``python -m benchmarks.tiers``. Estimates.

The epochs measured on an H100 are scaled by the published rates of another card, once by memory
bandwidth and once by arithmetic: a step is bound by a mixture, so the truth should lie between
them where the same kernels run. What was not training is taken as it was on the H100's host. The
time that no implementation beats comes from counted operations and bytes at the published rates.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.record import table
from benchmarks.roofline import Count, count, shape_of
from vnquant.spec import PRESETS

SYMBOLS, STEPS, EPOCHS = 102, 62, 100
EPOCH_SECONDS = 0.76 + 0.63 + 0.50
"""6, 5 and 4 layers on the H100, 2026-11-23 (benchmarks/NOTES.md)."""
WALL_SECONDS = 233.0
"""The whole run there (reports/2026-11-23-fleet-nvidia-h100-80gb-without-optimize.md)."""
UNIT_DOLLARS = 9.99 / 100
"""Pay as you go, announced by Google in September 2022."""


class Card(NamedTuple):
    """Published dense rates (NVIDIA's data sheets), and compute units an hour where known."""

    name: str
    tflops: float
    gigabytes: float
    width: int = 2
    """Bytes of a value in the computing dtype."""
    units: float | None = None
    """Seen by one user in September 2022; Colab publishes none and changes them."""


H100 = Card("H100 80 GB", 989.0, 3350.0)
CARDS = (
    # Turing has no bfloat16, in which the fused kernels compute: float32 there.
    Card("T4, float32", 8.1, 320.0, width=4, units=1.96),
    Card("L4", 121.0, 300.0),
    Card("A100 40 GB", 312.0, 1555.0, units=13.08),
    H100,
)


def weekly(width: int) -> Count:
    """Operations and bytes of the run: every member of every symbol, all steps, no validation."""
    model = PRESETS["base"]
    each = [count(shape_of(model, i), 32, width) for i in range(len(model.members))]
    times = SYMBOLS * STEPS * EPOCHS
    return Count(times * sum(c.operations for c in each), times * sum(c.bytes for c in each))


def scaled(card: Card) -> tuple[float, float]:
    """Seconds of the whole run, scaled from the H100: the quicker and the slower estimate."""
    training = EPOCH_SECONDS * EPOCHS
    rest = WALL_SECONDS - training
    ratios = (H100.tflops / card.tflops, H100.gigabytes / card.gigabytes)
    return min(ratios) * training + rest, max(ratios) * training + rest


def row(card: Card) -> list[str]:
    """A line of the table."""
    least = weekly(card.width).floor(card.tflops * 1e12, card.gigabytes * 1e9) / 60
    if card.width == H100.width:
        low, high = (t / 60 for t in scaled(card))
        run = f"{low:.0f} to {high:.0f}" if card is not H100 else f"{high:.1f} (measured)"
    else:
        # Other kernels in another dtype: nothing measured can be scaled.
        low = high = least
        run = f"over {least:.0f}"
    cost = "rate not known"
    if card.units is not None:
        dollars = [t / 60 * card.units * UNIT_DOLLARS for t in (low, high)]
        cost = " to ".join(f"{d:.2f}" for d in dollars)
        cost = cost if low != high else f"over {dollars[0]:.2f}"
    return [card.name, f"{card.tflops:g}", f"{card.gigabytes:g}", f"{least:.1f}", run, cost]


def main() -> None:
    run = weekly(2)
    print(f"{run.operations:.3g} operations, {run.bytes:.3g} bytes in bfloat16\n")
    head = ["card", "TFLOP/s", "GB/s", "floor, min", "run, min (estimate)", "dollars (estimate)"]
    print(table(head, [row(c) for c in CARDS]))


if __name__ == "__main__":
    main()
