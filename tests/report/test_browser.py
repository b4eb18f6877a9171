"""The page in headless Chromium: what it loads, what it runs, how it sorts, how wide it is.

Skipped where no Chromium is installed; docs/development.md says how to get one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.made import HOSTILE, SPEC, run_in
from vnquant.report import Sources, read_sources, render

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (requirements/dev.txt)"
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(NAMES)})")
    with playwright.sync_playwright() as driver:
        # The sandbox needs rights that root in a container does not have.
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """One page, opened from a file, and everything that happened in it."""

    def __init__(self, browser: Any, content: bytes, folder: Path, viewport: dict[str, int]):
        path = folder / "report.html"
        path.write_bytes(content)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport=viewport)
        self.page.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        # Folded parts may hold what is not loaded, or not wide, until somebody looks.
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        self.page.evaluate("Promise.all([...document.images].map((i) => i.decode()))")
        self.own = path.as_uri()

    def _dismiss(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @property
    def outside(self) -> list[str]:
        """Every request but for the page itself and what stands in it."""
        return [r for r in self.requests if r != self.own and not r.startswith("data:")]

    def sort(self, head: str) -> list[str]:
        """Press a head; the symbols from top to bottom."""
        self.page.get_by_role("button", name=head, exact=True).click()
        found: list[str] = self.page.locator("table.sortable tbody th").all_inner_texts()
        return found

    def number(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture(params=[SPEC.symbols, HOSTILE], ids=["plain", "hostile"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    return render(read_sources(run_in(tmp_path / "run", request.param)))


def test_nothing_outside_is_asked_for_and_nothing_goes_wrong(
    browser: Any, content: bytes, tmp_path: Path
) -> None:
    visit = Visit(browser, content, tmp_path, DESK)
    assert visit.outside == []
    assert visit.errors == []
    sizes = visit.number("[...document.images].map((i) => i.naturalWidth)")
    assert len(sizes) > 5
    assert min(sizes) > 0


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_does_not_scroll_sideways(
    browser: Any, content: bytes, tmp_path: Path, viewport: dict[str, int]
) -> None:
    visit = Visit(browser, content, tmp_path, viewport)
    assert visit.number("document.documentElement.scrollWidth") == viewport["width"]
    # The tables do, inside their own frames: else the check above would prove little.
    wider = "[...document.querySelectorAll('.scroll')].some((e) => e.scrollWidth > e.clientWidth)"
    assert visit.number(wider)


def test_a_page_of_nothing_opens_cleanly(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, render(Sources(spec=SPEC)), tmp_path, PHONE)
    assert (visit.outside, visit.errors) == ([], [])
    assert visit.number("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_table_sorts_as_numbers_both_ways_and_keeps_the_unknown_last(
    browser: Any, tmp_path: Path
) -> None:
    visit = Visit(browser, render(read_sources(run_in(tmp_path / "run"))), tmp_path, DESK)
    assert visit.sort("accuracy") == ["BBB", "AAA", "CCC"]  # 9 %, 51 %, 52 %
    assert visit.sort("accuracy") == ["CCC", "AAA", "BBB"]
    assert visit.number("document.querySelector('[aria-sort]').textContent") == "accuracy"
    assert visit.sort("RankIC") == ["BBB", "CCC", "AAA"]  # of AAA there is none
    assert visit.sort("RankIC") == ["CCC", "BBB", "AAA"]
    assert visit.sort("windows") == ["BBB", "CCC", "AAA"]  # 9, 40, 100: not so as text
    assert visit.sort("symbol") == ["AAA", "BBB", "CCC"]
    assert visit.number("document.querySelectorAll('[aria-sort]').length") == 1


def test_the_table_sorts_by_keyboard(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, render(read_sources(run_in(tmp_path / "run"))), tmp_path, DESK)
    visit.page.get_by_role("button", name="accuracy", exact=True).focus()
    visit.page.keyboard.press("Enter")
    assert visit.page.locator("table.sortable tbody th").all_inner_texts()[0] == "BBB"


def test_the_policy_stops_what_escaping_would_have_missed(browser: Any, tmp_path: Path) -> None:
    page = render(Sources(spec=SPEC))
    planted = b"<script>window.ran = 1</script><img src='http://127.0.0.1:9/x.png' onerror='ran=2'>"
    assert b"<main>" in page
    (tmp_path / "report.html").write_bytes(page.replace(b"<main>", b"<main>" + planted))
    opened = browser.new_page()
    failures: list[str] = []
    opened.on("requestfailed", lambda request: failures.append(request.failure))
    opened.goto((tmp_path / "report.html").as_uri())
    assert opened.evaluate("typeof window.ran") == "undefined"
    assert set(failures) <= {"csp"}
