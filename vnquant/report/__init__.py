"""One self-contained HTML page per run, read offline and on a phone; see docs/report.md."""

from vnquant.report.page import render
from vnquant.report.sources import Sources, digests, read_sources

__all__ = ["Sources", "digests", "read_sources", "render"]
