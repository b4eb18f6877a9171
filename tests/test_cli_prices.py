"""``vnquant prices`` as users meet it: real processes against a loopback service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.market.collect.fake import Fake, serving
from vnquant.cli_prices import Rate
from vnquant.market.folder import PriceFolder
from vnquant.market.synthetic import SyntheticMarket

SYMBOLS = ("ACV", "FPT", "HPG", "PVS", "VCB")


@pytest.fixture(scope="module")
def bars() -> dict[str, pd.DataFrame]:
    raw = SyntheticMarket(7).load(list(SYMBOLS), start=None, end=None)
    return {str(s): f.reset_index(drop=True) for s, f in raw.groupby("symbol")}


@pytest.fixture
def fake(bars: dict[str, pd.DataFrame]) -> Iterator[Fake]:
    with serving(Fake(dict(bars))) as played:
        yield played


def words(fake: Fake, into: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "vnquant", "prices", "fetch", "--base-url", fake.url),
        *("--into", str(into), "--rate", "200/s", "--timeout", "1", *more),
    ]


def call(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )


@pytest.mark.parametrize("source", ["cafef", "vndirect", "vndirect-chart"])
def test_what_is_fetched_is_what_training_reads(
    source: str, fake: Fake, bars: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    done = call(words(fake, tmp_path / "p", "--source", source, "--symbols", *SYMBOLS))
    assert done.returncode == 0, done.stderr
    told, where = done.stdout.splitlines()
    assert re.fullmatch(rf"{source} to \d{{4}}-\d\d-\d\d: 5 new", told)
    assert where == str(tmp_path / "p")
    raw = PriceFolder(tmp_path / "p").load()
    assert {s: len(f) for s, f in raw.groupby("symbol")} == {s: len(f) for s, f in bars.items()}
    train = (sys.executable, "-m", "vnquant", "train", "--validate-only")
    done = call(
        [*train, "--prices", where, "--symbols", "FPT", "VCB", "--workspace", str(tmp_path / "w")]
    )
    assert done.returncode == 0, done.stderr


def test_who_fails_is_listed_and_the_rest_arrives(fake: Fake, tmp_path: Path) -> None:
    fake.faults["HPG"] = ["truncated"] * 9
    command = words(fake, tmp_path / "p", "--source", "cafef", "--universe", "all")
    done = call(command)
    assert done.returncode == 4, done.stderr
    assert "cafef to" in done.stdout
    assert "1 failed, 4 new" in done.stdout
    assert "HPG failed: " in done.stderr
    assert "1 of 5 symbols failed: HPG" in done.stderr
    assert "Traceback" not in done.stderr
    fake.faults.clear()
    done = call(command)
    assert (done.returncode, "4 current, 1 new" in done.stdout) == (0, True)


def test_a_killed_fetch_continues_where_it_was(
    fake: Fake, bars: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    fake.quirks.page_cap, fake.quirks.window = 20, 65
    fast = ["--source", "cafef", "--symbols", *SYMBOLS, "--quiet", "--start", "2021-01-01"]
    command = words(fake, tmp_path / "p", *fast)
    environment = os.environ | {"NO_PROXY": "127.0.0.1"}
    kills = 0
    for _ in range(3):
        began = len(fake.asked)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(fake.asked) < began + 40 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        for whole in (tmp_path / "p").glob("*.parquet"):
            assert len(pd.read_parquet(whole))  # never half a file
    assert kills == 3
    asked = len(fake.asked)
    done = call(command)
    assert done.returncode == 0, done.stderr
    raw = PriceFolder(tmp_path / "p").load()
    for symbol, found in raw.groupby("symbol"):
        expected = bars[str(symbol)]
        expected = expected[expected["date"] >= "2021-01-01"]
        assert list(found["close"]) == list(expected["close"])
    # What was killed was not asked twice: a fetch in one go costs as much, but for a few requests.
    with serving(Fake(dict(bars), quirks=fake.quirks)) as undisturbed:
        assert call(words(undisturbed, tmp_path / "q", *fast)).returncode == 0
        assert asked < len(fake.asked) <= len(undisturbed.asked) + 3 * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_nothing_is_lost(
    number: signal.Signals, fake: Fake, tmp_path: Path
) -> None:
    slow = words(fake, tmp_path / "p", "--source", "vndirect", "--symbols", *SYMBOLS)
    slow[slow.index("200/s")] = "2/s"
    environment = os.environ | {"NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(slow, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "p").glob("*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert "run the same command again" in said
    done = call(words(fake, tmp_path / "p", "--source", "vndirect", "--symbols", *SYMBOLS))
    assert done.returncode == 0
    assert "current" in done.stdout


def test_nobody_there_is_told_quickly(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "vnquant", "prices", "fetch", "--base-url", "http://127.0.0.1:1"),
        *("--source", "cafef", "--symbols", "FPT", "VCB", "HPG", "--into", str(tmp_path / "p")),
    ]
    began = time.monotonic()
    done = call(command)
    assert done.returncode == 5
    assert time.monotonic() - began < 30
    assert "127.0.0.1:1: no answer" in done.stderr
    assert "not asked" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--source", "ssi", "--symbols", "FPT"], "ssi"),
        (["--source", "vndirect-chart"], "--symbols and --universe"),
        (["--source", "cafef", "--symbols", "FPT", "--universe", "vn102"], "give one of the two"),
        (["--source", "cafef", "--symbols", "F/PT"], "not a ticker"),
        (["--source", "cafef", "--symbols", "FPT", "--rate", "0"], "not a rate"),
        (["--source", "cafef", "--symbols", "FPT", "--rate", "fast"], "not a rate"),
        (["--source", "cafef", "--symbols", "FPT", "--start", "2999-01-01"], "is after"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    more: list[str], says: str, fake: Fake, tmp_path: Path
) -> None:
    done = call(words(fake, tmp_path / "p", *more))
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "p").exists()
    assert fake.asked == []


@pytest.mark.parametrize(
    ("text", "rate"), [("2", 2.0), ("2/s", 2.0), ("30/min", 0.5), (" .5/S ", 0.5), ("90/m", 1.5)]
)
def test_rates(text: str, rate: float) -> None:
    assert Rate().convert(text, None, None) == rate


def test_without_its_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['requests'] = None; import vnquant.cli as c; c.main()"
    what = (
        "prices",
        "fetch",
        "--source",
        "cafef",
        "--symbols",
        "FPT",
        "--into",
        str(tmp_path / "p"),
    )
    done = call([sys.executable, "-c", hidden, *what])
    assert done.returncode == 2
    assert "vnquant[prices]" in done.stderr
    assert not (tmp_path / "p").exists()


def test_two_sources_are_compared(fake: Fake, tmp_path: Path) -> None:
    both = {"cafef": tmp_path / "a", "vndirect": tmp_path / "b"}
    for source, into in both.items():
        assert (
            call(words(fake, into, "--source", source, "--symbols", "FPT", "VCB")).returncode == 0
        )
        bars = fake.bars["FPT"].copy()
        bars.loc[100, "close"] *= 1.05
        fake.bars["FPT"] = bars
    compare = [sys.executable, "-m", "vnquant", "prices", "compare", *map(str, both.values())]
    done = call([*compare, "--out", str(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2 common symbols, 1 disagreements in 1 of them"
    assert "| FPT |" in (tmp_path / "out" / "summary.md").read_text()
    done = call(words(fake, both["cafef"], "--source", "vndirect", "--symbols", "FPT"))
    assert (done.returncode, "of cafef" in done.stderr) == (2, True)


def test_the_last_fetch_is_on_record(fake: Fake, tmp_path: Path) -> None:
    fake.faults["FPT"] = ["404"]
    call(words(fake, tmp_path / "p", "--source", "cafef", "--symbols", "FPT", "VCB"))
    record = json.loads((tmp_path / "p" / "fetch.json").read_text())
    assert {r["symbol"]: r["outcome"] for r in record["results"]} == {"FPT": "failed", "VCB": "new"}
    assert "404" in record["results"][0]["note"]
