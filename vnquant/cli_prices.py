"""``vnquant prices``: collect prices into a folder, and compare two folders."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vnquant import cli_options as opt
from vnquant.errors import Stopped, UsageError

if TYPE_CHECKING:
    from vnquant.market.collect.answers import Service
    from vnquant.market.collect.cache import Replies
    from vnquant.market.collect.client import Manners
    from vnquant.market.collect.fetch import FetchReport

SOURCES = ("cafef", "vndirect", "vndirect-chart")


class Rate(click.ParamType[Any]):
    """Requests per second, as 2/s, 30/min or 2."""

    name = "rate"
    SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0}  # noqa: RUF012

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(?:/([a-z]+))?", str(value).strip().lower())
        if found is None or (found[2] or "") not in self.SECONDS or float(found[1]) == 0:
            self.fail(f"{value!r} is not a rate; write it as 2/s or 30/min", param, ctx)
        return float(found[1]) / self.SECONDS[found[2] or ""]


@click.group()
def prices() -> None:
    """Collect prices from public web services, and compare sources."""


@prices.command()
@click.option("--source", type=click.Choice(SOURCES), required=True, help="The service to ask.")
@opt.symbols
@click.option(
    "--universe",
    type=click.Choice(["vn102", "all"]),
    help="A named list instead of --symbols; all: every share on the service's own list.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of one parquet file per symbol; made if need be, brought up to date if there.",
)
@click.option("--start", type=opt.Date(), help="First date wanted. Default: all there is.")
@click.option("--end", type=opt.Date(), help="Last date wanted. Default: the last that is over.")
@click.option(
    "--full", is_flag=True, help="Fetch whole histories again even where an update would do."
)
@click.option(
    "--rate", type=Rate(), default="2/s", show_default=True, help="Requests, at most: 2/s, 30/min."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Silence after which a request is given up; half of it to connect.",
)
@click.option(
    "--base-url",
    envvar="VNQUANT_PRICES_URL",
    help="Another address of the service. Default: the variable VNQUANT_PRICES_URL, or its own.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress, only the result.")
def fetch(
    source: str,
    symbols: tuple[str, ...],
    universe: str | None,
    into: Path,
    start: dt.date | None,
    end: dt.date | None,
    full: bool,
    rate: float,
    timeout: float,
    base_url: str | None,
    quiet: bool,
) -> None:
    """Fetch prices into a folder that `vnquant train --prices FOLDER` reads.

    The same command again continues where it was stopped, adds new sessions, and fetches a symbol
    as a whole when its source has rewritten its history. Symbols that fail are listed; the others
    arrive. Training itself never uses the network.
    """
    from vnquant.cli_progress import open_view
    from vnquant.events import Events
    from vnquant.market.collect.cache import Replies
    from vnquant.market.collect.fetch import Fetch, last_settled, outcome_of
    from vnquant.market.collect.store import PriceStore

    manners = _manners(rate, timeout)
    settled = last_settled()
    until = min(end or settled, settled)
    if start is not None and start > until:
        raise UsageError(f"{start} is after {until}", where="--start", fix="give an earlier date")
    names = _wanted(symbols, universe)
    store = PriceStore(into)
    store.refuse_other_sources(source)
    with _ended_by_sigterm(), store.opened(), open_view(quiet=quiet) as view:
        events = Events(listener=view)
        replies = Replies(store.replies, f"{source} {base_url} {settled}")
        service = _service(source, base_url, manners, replies, events, settled)
        if names is None:
            names = sorted(service.listing())
        run = Fetch(service, store, replies, start=start, until=until, full=full)
        report = run.run(names, events)
    _say(report, into)
    error = outcome_of(report)
    if error is not None:
        raise error


@prices.command()
@click.argument("folder_a", type=click.Path(path_type=Path))
@click.argument("folder_b", type=click.Path(path_type=Path))
@opt.symbols
@click.option("--start", type=opt.Date(), help="First date compared.")
@click.option("--end", type=opt.Date(), help="Last date compared.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="price-comparison",
    show_default=True,
    help="Folder for disagreements.csv and summary.md.",
)
def compare(
    folder_a: Path,
    folder_b: Path,
    symbols: tuple[str, ...],
    start: dt.date | None,
    end: dt.date | None,
    out: Path,
) -> None:
    """Compare two price folders or files bar by bar, and report where they disagree."""
    from vnquant.market.collect.crosscheck import compare as crosscheck
    from vnquant.market.folder import PriceFolder

    a, b = (
        PriceFolder(path).load(symbols or None, start=start, end=end)
        for path in (folder_a, folder_b)
    )
    found = crosscheck(a, b)
    found.write(out, str(folder_a), str(folder_b))
    wrong = found.symbols[found.symbols["verdict"] != "agree"]
    click.echo(
        f"{len(found.symbols):,} common symbols, {len(found.disagreements):,} disagreements in "
        f"{int((found.symbols['disagreements'] > 0).sum()):,} of them"
    )
    for symbol, verdict in wrong["verdict"].head(20).items():
        if verdict != "differ":
            click.echo(f"{symbol}: {verdict}")
    click.echo(str(out / "summary.md"))


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Leave at once, as Ctrl-C does: files are whole at any moment, so nothing needs saving."""

    def leave(signum: int, _: object) -> None:
        raise Stopped("stopped", fix="run the same command again to continue", signum=signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _manners(rate: float, timeout: float) -> Manners:
    try:
        from vnquant.market.collect.client import Manners
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the package {error.name} is not installed",
            where="vnquant prices fetch",
            fix="install vnquant with its extra `prices`: pip install 'vnquant[prices]'",
        ) from error
    return Manners(
        rate=rate,
        connect_seconds=timeout / 2,
        silence_seconds=timeout,
        answer_seconds=3 * timeout,
    )


def _wanted(symbols: tuple[str, ...], universe: str | None) -> list[str] | None:
    """The tickers; None: all that the service lists."""
    from vnquant.market.universe import VN102, canonical
    from vnquant.spec import SYMBOL_PATTERN

    if bool(symbols) == bool(universe):
        raise UsageError(
            "give one of the two", where="--symbols and --universe", fix="--symbols FPT VCB"
        )
    if universe:
        return sorted(VN102) if universe == "vn102" else None
    names = canonical(symbols)
    wrong = [n for n in names if not SYMBOL_PATTERN.fullmatch(n)]
    if wrong:
        raise UsageError(
            f"{wrong[0]!r} is not a ticker", where="--symbols", fix="1 to 10 letters or digits"
        )
    return names


def _service(
    name: str,
    base_url: str | None,
    manners: Manners,
    replies: Replies,
    events: Any,
    settled: dt.date,
) -> Service:
    from vnquant.market.collect.cafef import CafeF
    from vnquant.market.collect.client import Client
    from vnquant.market.collect.dchart import VNDirectChart
    from vnquant.market.collect.vndirect import VNDirect

    def client(kind: type[Any]) -> Client:
        return Client(
            base_url or kind.base_url,
            referer=kind.referer,
            manners=manners,
            replies=replies,
            say=lambda text: events.emit("price_note", text=text),
        )

    if name == "cafef":
        return CafeF(client(CafeF), settled)
    if name == "vndirect":
        return VNDirect(client(VNDirect))
    return VNDirectChart(client(VNDirectChart))


def _say(report: FetchReport, into: Path) -> None:
    """The result on stdout, every failure on stderr."""
    for result in report.failed:
        click.echo(f"{result.symbol} failed: {result.note}", err=True)
    told = [f"{count} {outcome}" for outcome, count in sorted(report.counts.items())]
    click.echo(f"{report.source} to {report.through}: {', '.join(told)}")
    click.echo(str(into))
