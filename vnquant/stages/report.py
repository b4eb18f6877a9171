"""Stage report: everything that is known about the run, as one page; see docs/report.md."""

from __future__ import annotations

from typing import Any

from vnquant.report import digests, read_sources, render
from vnquant.report.page import template_digest
from vnquant.stages.context import Context
from vnquant.workspace import write_bytes

NAME = "report.html"


def is_current(ctx: Context, marker: dict[str, Any]) -> bool:
    made_from = (marker.get("sources"), marker.get("template"))
    return made_from == (digests(ctx.run), template_digest())


def run(ctx: Context) -> dict[str, Any]:
    sources = read_sources(ctx.run)
    page = render(sources)
    write_bytes(ctx.stage("report") / NAME, page)
    return {
        "sources": sources.digests,
        "template": template_digest(),
        "bytes": len(page),
        "failed": {},
    }
