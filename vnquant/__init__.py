"""vnquant: fleets of small market forecasters, trained, judged and deployed reproducibly."""

__version__ = "0.1.0"
