"""Measurements, not tests: ratios from one run on one machine. See benchmarks/README.md."""

from vnquant.cli import spin_briefly

# As the command itself does, and as early: libgomp reads it when torch is loaded.
spin_briefly()
