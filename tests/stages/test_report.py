"""Stage report: when it runs, when it is skipped, when it is made anew."""

from __future__ import annotations

import pytest

from tests.stages.conftest import context, happened, started
from vnquant.report import page
from vnquant.stages import run_stage, run_stages
from vnquant.stages.context import Context
from vnquant.workspace import write_json


def again(ctx: Context) -> Context:
    """The same run, as a new process would open it."""
    return context(ctx.workspace.path)


def test_the_page_of_a_real_run_shows_it(ctx: Context) -> None:
    marker = run_stages(ctx, ["deploy", "forecast", "report"])["report"]
    written = (ctx.stage("report") / "report.html").read_bytes()
    assert marker["bytes"] == len(written)
    text = written.decode("utf-8")
    for words in (ctx.spec.digest, ctx.marker("ingest")["snapshot"], "Forecast of FPT", "Refused:"):
        assert words in text, words
    assert "No date has enough symbols" in text  # two make no cross-section
    assert "the stage backtest has not run" not in text


def test_a_finished_report_is_skipped_until_something_it_shows_has_changed(ctx: Context) -> None:
    run_stage(ctx, "report")
    assert "the stage backtest has not run" in (ctx.stage("report") / "report.html").read_text()
    run_stage(again(ctx), "report")
    assert started(ctx).count("report") == 1
    assert "report" in {e["stage"] for e in happened(ctx, "stage_skipped")}
    run_stages(again(ctx), ["forecast", "report"])
    assert started(ctx).count("report") == 2
    assert "Forecast of FPT" in (ctx.stage("report") / "report.html").read_text("utf-8")


def test_a_changed_template_makes_reports_outdated(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vnquant.stages import report

    run_stage(ctx, "report")
    assert page.template_digest() == ctx.marker("report")["template"]
    monkeypatch.setattr(report, "template_digest", lambda: "f" * 64)
    run_stage(again(ctx), "report")
    assert started(ctx).count("report") == 2


def test_making_it_again_gives_the_same_bytes(ctx: Context) -> None:
    run_stage(ctx, "report")
    path = ctx.stage("report") / "report.html"
    first = path.read_bytes()
    marker = ctx.marker("report")
    write_json(ctx.stage("report") / "DONE.json", {**marker, "template": "outdated"})
    run_stage(again(ctx), "report")
    assert started(ctx).count("report") == 2
    assert path.read_bytes() == first
