"""The page itself: the template, filled in, under a policy that lets it load nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vnquant.report import formats, sections
from vnquant.report.sources import Sources

OPEN_DETAILS = 3
"""With more symbols than this their plots start folded away."""


def render(sources: Sources) -> bytes:
    """The whole page as UTF-8; the same sources give the same bytes.

    Every value from outside is escaped, plots are images that run no script, and the page's own
    Content-Security-Policy allows nothing but the two inline parts it was written with.
    """
    style, script = _part("report.css"), _part("sort.js")
    page = _environment().get_template("report.html.j2")
    ic_image, ic_reason = sections.information(sources)
    text = page.render(
        sources=sources,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_allowed(style)}; "
        f"script-src {_allowed(script)}; base-uri 'none'; form-action 'none'",
        s=sections,
        open_details=len(sources.spec.symbols) <= OPEN_DETAILS,
        ic_image=ic_image,
        ic_reason=ic_reason,
        spec_json=json.dumps(sources.spec.model_dump(mode="json"), indent=2, sort_keys=True),
    )
    return text.encode("utf-8")


@cache
def template_digest() -> str:
    """The sha256 of what pages are made with: a changed template makes them outdated."""
    folder = resources.files("vnquant.report") / "templates"
    parts = sorted((p.name, p.read_bytes()) for p in folder.iterdir() if p.is_file())
    return hashlib.sha256(b"".join(name.encode() + content for name, content in parts)).hexdigest()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vnquant.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = ("percent", "fixed", "interval", "count")
    environment.filters |= {name: getattr(formats, name) for name in names}
    return environment


def _part(name: str) -> str:
    return (resources.files("vnquant.report") / "templates" / name).read_text(encoding="utf-8")


def _allowed(content: str) -> str:
    """How a Content-Security-Policy names one inline part."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
