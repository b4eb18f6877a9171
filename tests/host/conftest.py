"""Stores to test with: a folder, and a real rclone remote on loopback with faults in between."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


Script = Callable[[str], ModuleType]


@pytest.fixture
def script() -> Script:
    """Loads a module of docker/, which is no package, by its name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "docker" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server:
    """``rclone serve webdav`` on loopback."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self.port, self._log = root, free_port(), log
        self.start()

    def start(self) -> None:
        words = ["rclone", "serve", "webdav", str(self.root), "--addr", f"127.0.0.1:{self.port}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError("rclone serve did not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Faults:
    """What the proxy does to the next requests of a kind: a status, or truncate, drop, hang."""

    plan: list[tuple[str, str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def next(self, method: str) -> str | None:
        for i, (kind, fault) in enumerate(self.plan):
            if kind == method:
                del self.plan[i]
                self.seen.append(f"{method} {fault}")
                return fault
        return None


def proxy(port: int, faults: Faults) -> ThreadingHTTPServer:
    """An HTTP proxy in front of the server that misbehaves on demand."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self._body()
            fault = faults.next(self.command)
            if fault == "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            elif fault == "truncate":
                # What a broken gateway does: half arrives, and the client is told all is well.
                self._forward(body[: len(body) // 2])
            elif fault:
                self.send_response(int(fault))
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self._forward(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _forward(self, body: bytes) -> None:
            upstream = HTTPConnection("127.0.0.1", port, timeout=30)
            skip = {"host", "transfer-encoding", "content-length", "connection", "accept-encoding"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skip}
            if "Destination" in headers:
                own = f"127.0.0.1:{self.server.server_address[1]}"
                headers["Destination"] = headers["Destination"].replace(own, f"127.0.0.1:{port}")
            try:
                upstream.request(self.command, self.path, body=body, headers=headers)
                answer = upstream.getresponse()
                content = answer.read()
            except OSError:
                self.close_connection = True
                return
            finally:
                upstream.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = len(content) if self.command != "HEAD" else answer.getheader("Content-Length")
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@dataclass
class Remote:
    """A remote named ``t:`` in an rclone configuration of the test's own."""

    server: Server
    faults: Faults
    root: Path
    config: Path


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed here")
    root = tmp_path / "served"
    root.mkdir()
    server = Server(root, tmp_path / "serve.log")
    faults = Faults()
    between = proxy(server.port, faults)
    config = tmp_path / "rclone.conf"
    url = f"http://127.0.0.1:{between.server_address[1]}"
    config.write_text(f"[t]\ntype = webdav\nurl = {url}\nvendor = other\n")
    for name in [n for n in os.environ if n.startswith("RCLONE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RCLONE_CONFIG", str(config))
    try:
        yield Remote(server, faults, root, config)
    finally:
        between.shutdown()
        between.server_close()
        server.kill()
