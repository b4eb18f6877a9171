"""What a page says, word for word, and that it says it the same way every time."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.report.made import HOSTILE, SPEC, equity, ic, sources_in
from vnquant.report import Sources, charts, render, sections, svg
from vnquant.report.page import template_digest
from vnquant.report.sources import Training

NEEDS_NOTHING_OUTSIDE = re.compile(r"^(data:|#)")


class Reader(HTMLParser):
    """Elements, addresses and words of a page, as a browser would find them."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.images: list[dict[str, str]] = []
        self.words: list[str] = []
        self.feed(page.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "img":
            self.images.append({k: v or "" for k, v in attrs})

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return sources_in(tmp_path)


def svg_of(source: str) -> ElementTree.Element:
    head, _, content = source.partition(",")
    assert head == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(content))


def test_the_page_says_what_the_files_say(sources: Sources) -> None:
    text = Reader(render(sources)).text
    for words in (
        "Refused: AAA. Hardly CCC. Deployed as set BBB by force, although the gate refused it.",
        "90 % interval",
        "CCC diverged; because CCC",
        "RankIC over 40 dates: mean +0.1000, above 0 on 50%.",
        "Equity ends at 0.880 of its start; deepest drawdown 20.0%.",
        "Best validation loss 1.2500.",
        "Last close 20.00, forecast 20.00 thousand VND after 2 sessions",
        "1,299 of 1,300 bars kept, 1 quarantined, 0 breaks.",
        "vnquant run all --spec run.json",
        SPEC.digest,
        "aaaaaaaaaaaa and changes",
    ):
        assert words in text, words
    assert "never seen" not in text


def test_a_page_of_nothing_says_what_has_not_run() -> None:
    reader = Reader(render(Sources(spec=SPEC)))
    assert reader.images == []
    for words in (
        "Not judged: the stage evaluate has not run.",
        "the stage deploy has not run",
        "The stages train and forecast have not run.",
        "No model has finished training.",
        "No reliability table",
        "the stage backtest has not run",
        "The stage ingest has not run.",
        "No manifest",
    ):
        assert words in reader.text, words
    assert all(symbol in reader.text for symbol in SPEC.symbols)


@pytest.mark.parametrize(
    "field", sorted(f.name for f in dataclasses.fields(Sources) if f.name != "spec")
)
def test_any_one_source_may_be_absent(sources: Sources, field: str) -> None:
    empty = getattr(Sources(spec=SPEC), field)
    without = render(dataclasses.replace(sources, **{field: empty}))
    assert without.endswith(b"</html>\n")
    assert without != render(sources)


def test_the_uncalibrated_error_is_shown_where_a_verdict_has_it(sources: Sources) -> None:
    assert sources.verdict is not None
    said = "As the members say them"
    assert said not in Reader(render(sources)).text, "as of a verdict of earlier versions"
    verdict = {**sources.verdict, "uncalibrated": {"ece": 0.0434, "brier": 0.2512}}
    text = Reader(render(dataclasses.replace(sources, verdict=verdict))).text
    assert said in text
    assert "0.0434" in text
    assert "0.2512" in text


def test_the_same_sources_give_the_same_bytes_in_another_process_and_for_another_user(
    sources: Sources, tmp_path: Path, repository: Path
) -> None:
    code = (
        "import sys; from vnquant.report import *; from vnquant.workspace import Workspace;"
        "run = Workspace(sys.argv[1]).find('');"
        "sys.stdout.buffer.write(render(read_sources(run)))"
    )
    theirs = tmp_path / "matplotlibrc"
    theirs.write_text("lines.linewidth: 9\nxtick.labelsize: 20\n")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=repository,
        env={**os.environ, "MATPLOTLIBRC": str(theirs), "PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == render(sources)


def test_every_image_is_whole_described_and_without_script(sources: Sources) -> None:
    images = Reader(render(sources)).images
    assert (
        len(images) == 2 + 3 + 5
    )  # fans, curves of symbols and pool, overview, calibration, IC, equity
    for found in images:
        assert len(found["alt"]) > 20
        names = {e.tag.rpartition("}")[2] for e in svg_of(found["src"]).iter()}
        assert "path" in names
        assert not names & {"script", "foreignObject", "image", "a"}


def test_a_compacted_plot_keeps_its_text_and_its_curves() -> None:
    written = """<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "x"
  "y">
<svg xmlns="http://www.w3.org/2000/svg">
 <metadata><a/></metadata>
 <g id="text_1"><text x="1.23456" transform="rotate(-0 1 2)">0.02575  of it</text></g>
 <path id="m12" d="M 1.98765 2
L 3.5 -0.12999
"/>
</svg>
"""
    assert svg.compact(written) == (
        '<svg xmlns="http://www.w3.org/2000/svg"><g><text x="1.23">0.02575  of it</text></g>'
        '<path id="m12" d="M 1.98 2 L 3.5 -0.12 "/></svg>'
    )


def test_nothing_hostile_becomes_markup(tmp_path: Path, sources: Sources) -> None:
    plain, hostile = Reader(render(sources)), Reader(render(sources_in(tmp_path / "h", HOSTILE)))
    assert hostile.tags.count("script") == plain.tags.count("script") == 1
    assert set(hostile.tags) == set(plain.tags)
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    for name, address in hostile.attributes:
        if name in ("href", "src"):
            assert NEEDS_NOTHING_OUTSIDE.match(address)
    for name in HOSTILE:
        assert " ".join(name.split()) in hostile.text


def test_every_symbol_has_a_row_and_what_is_unknown_sorts_last(sources: Sources) -> None:
    found = dataclasses.replace(sources, failed={"DDD": "no usable bar"})
    rows = sections.symbol_rows(found)
    assert [row[0].text for row in rows] == ["AAA", "BBB", "CCC", "DDD"]
    assert len({len(row) for row in rows} | {len(sections.SYMBOL_HEADS)}) == 1
    column = sections.SYMBOL_HEADS.index("accuracy")
    assert [row[column].key for row in rows] == [0.51, 0.09, 0.52, None]
    assert rows[3][-1].text == "no usable bar"


def test_a_diverged_model_and_an_early_stop_leave_the_curves_readable() -> None:
    models = [
        Training("AAA", 0, "finished", 0, ((1.0, 2.0),)),
        Training("AAA", 1, "diverged", None, ((3.0, 4.0), (float("nan"), float("inf")))),
        Training("BBB", 0, "finished", 1, ((1.0, 4.0), (1.0, 5.0))),
    ]
    said = charts.training_overview(models).alternative
    assert "3 models: 4.0000 after the first epoch, 5.0000 after the last." in said
    assert "Best validation loss 2.0000" in charts.training_curve(models[:2]).alternative


def test_a_drawdown_may_be_written_with_either_sign() -> None:
    table = equity()
    turned = table.assign(drawdown=-table["drawdown"])
    assert charts.equity(table) == charts.equity(turned)


def test_correlations_of_too_few_symbols_are_explained(sources: Sources) -> None:
    unknown = dataclasses.replace(sources, ic=ic().assign(rank_ic=np.nan))
    assert "No date has enough symbols" in Reader(render(unknown)).text


def test_the_template_digest_is_a_sha256() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", template_digest())
