"""Measurements, not tests: ratios from one run on one machine. See benchmarks/README.md."""
