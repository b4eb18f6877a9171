"""Devices: which one, how many threads, which precision. One module per kind of hardware."""
