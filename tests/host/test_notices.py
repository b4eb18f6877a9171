"""Notices against a receiver on loopback: what arrives, who hangs, and that no address leaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vnquant.errors import UsageError
from vnquant.host import notices

pytest.importorskip("apprise", reason="the extra host is not installed")
TOKEN = "s3cr3t-t0ken"  # what must not be seen anywhere


class Receiver:
    """Keeps what is posted; ``/hang`` never answers and ``/refuse`` answers 403."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.free = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                if "hang" in self.path:
                    receiver.free.wait(60)
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(json.loads(body))
                self.send_response(403 if "refuse" in self.path else 200)
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str = "", more: str = "") -> str:
        return f"json://user:{TOKEN}@127.0.0.1:{self.server.server_address[1]}/{path}{more}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.free.set()
    found.server.shutdown()
    found.server.server_close()


def test_title_and_text_arrive_as_success_or_failure(receiver: Receiver) -> None:
    for good in (True, False):
        assert notices.send([receiver.url()], "a title", "52 %\nof all", good=good) == []
    assert [(m["title"], m["message"]) for m in receiver.got] == [("a title", "52 %\nof all")] * 2
    assert [m["type"] for m in receiver.got] == ["success", "failure"]


def test_who_hangs_is_given_up_soon_and_named_and_the_others_are_told(receiver: Receiver) -> None:
    hanging = receiver.url("hang", "?rto=50&cto=50")
    began = time.monotonic()
    urls = [hanging, receiver.url(), receiver.url("refuse"), f"nonsense://{TOKEN}"]
    said = notices.send(urls, "t", "b", good=True, seconds=4)
    assert time.monotonic() - began < 20
    assert len(receiver.got) == 2
    assert len(said) == 3
    assert "address 1: no answer within 4 s" in said[0]
    assert "address 3 (JSON)" in said[1]
    assert "address 4: apprise knows no such kind" in said[2]
    assert TOKEN not in "".join(said)


def test_a_sender_that_never_ends_is_ended(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "STARTING", -3.9)
    began = time.monotonic()
    (said,) = notices.send([receiver.url()], "t", "b", good=True, seconds=4)
    assert time.monotonic() - began < 3
    assert "did not answer" in said


def test_addresses_come_from_a_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "addresses"
    file.write_text("# mine\n\n json://a \njson://b\n")
    monkeypatch.setenv(notices.VARIABLE, "json://c json://d")
    assert notices.addresses(file) == ["json://a", "json://b", "json://c", "json://d"]
    assert notices.send([], "t", "b", good=True) == []
    with pytest.raises(UsageError, match="cannot be read"):
        notices.addresses(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_cycle_tells_how_it_ended_and_keeps_the_address_to_itself(
    receiver: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "addresses"
    file.write_text(f"{receiver.url()}\n{receiver.url('refuse')}\n")
    workspace = tmp_path / "w"
    words = [
        *(sys.executable, "-m", "vnquant", "train", "--symbols", "FPT", "--start", "2019-01-01"),
        *("--preset", "small", "--epochs", "1", "--threads", "1"),
        *("--workspace", str(workspace), "--notify", str(file)),
    ]
    nowhere = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nowhere.sock"}
    bad = subprocess.run([*words, "--mode", "hybrid", "--target", "cpu"], env=nowhere,
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert bad.returncode != 0
    good = subprocess.run([*words, "--mode", "local"], capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    none = subprocess.run([*words, "--mode", "local", "--prices", str(tmp_path / "nowhere")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert none.returncode == 3
    failed, finished, unplanned = receiver.got[0], receiver.got[-4], receiver.got[-1]
    assert "failed before its first phase" in unplanned["title"]
    assert "nowhere" in unplanned["message"]
    assert failed["type"] == "failure"
    assert "It ended in phase 2" in failed["message"]
    assert finished["type"] == "success"
    assert "Symbols: 1 of 1 done, 0 failed" in finished["message"]
    assert "Accuracy: " in finished["message"]
    assert "Cost: " in finished["message"]
    assert "Time: 0:0" in finished["message"]
    seen = [good.stdout, good.stderr, bad.stdout, bad.stderr]
    seen += [p.read_text(errors="replace") for p in workspace.rglob("*") if p.is_file()]
    assert TOKEN not in "".join(seen)
    assert "address 2 (JSON): refused" in good.stderr


def test_the_test_notice(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "addresses"
    file.write_text(receiver.url())
    words = [sys.executable, "-m", "vnquant", "notify"]
    done = subprocess.run([*words, "--notify", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert receiver.got[0]["title"] == "vnquant: a test"
    assert subprocess.run(words, capture_output=True).returncode == 2
    file.write_text(receiver.url("refuse"))
    done = subprocess.run([*words, "--notify", str(file)], capture_output=True, text=True)
    assert done.returncode == 5
