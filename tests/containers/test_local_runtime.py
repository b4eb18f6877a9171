"""An image as Colab's local runtime: who may talk to it, and a notebook's cells run in it.

The CPU image has the same Jupyter layer as the CUDA one; spoken to as Colab's page does, through
the published port, with its origin, over the protocol of Jupyter's kernels.
"""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import websocket

from vnquant.errors import RetryableError, UsageError
from vnquant.host import image_build, image_context
from vnquant.host.colab import local_runtime
from vnquant.market.synthetic import SyntheticMarket

pytestmark = pytest.mark.container

COLAB, FOREIGN = "https://colab.research.google.com", "https://example.org"
SETTINGS = {
    "preset": "small",
    "start": "2019-01-01",
    "validation_start": "2021-06-01",
    "test_start": "2022-06-01",
    "epochs": 1,
    "words": ["--threads", "1"],
}


@dataclass(frozen=True)
class Served:
    """A local runtime, as the address says that `local_runtime.start` has returned."""

    port: int
    token: str
    drive: Path

    def ask(
        self, path: str, *, token: str | None = None, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer; ``token``: None for the right one."""
        query = f"?token={self.token if token is None else token}"
        request = Request(f"http://127.0.0.1:{self.port}{path}{query}", method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def kernel(self) -> str:
        """A new kernel, started as Colab's page does."""
        status, _, body = self.ask("/api/kernels", method="POST", Origin=COLAB)
        assert status == 201, body
        return str(json.loads(body)["id"])

    def channels(self, kernel: str, origin: str, token: str | None = None) -> Any:
        """The kernel's socket."""
        query = f"?token={self.token if token is None else token}"
        address = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels{query}"
        return websocket.create_connection(address, origin=origin, timeout=300)


def served(address: str, drive: Path) -> Served:
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{40,})", address)
    assert found, "an address of loopback, with a token"
    return Served(int(found[1]), found[2], drive)


def execute(channels: Any, code: str) -> str:
    """What a cell prints; an exception in it fails the test."""
    identity = uuid.uuid4().hex
    header = {"msg_id": identity, "msg_type": "execute_request", "session": "test",
              "username": "", "version": "5.3"}  # fmt: skip
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {},
               "allow_stdin": False, "stop_on_error": True}  # fmt: skip
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    channels.send(json.dumps({**message, "channel": "shell"}))
    said, answered, idle = "", False, False
    while not (answered and idle):
        heard = json.loads(channels.recv())
        if heard["parent_header"].get("msg_id") != identity:
            continue
        kind, content = heard["msg_type"], heard["content"]
        assert kind != "error", "\n".join(content["traceback"])
        said += content["text"] if kind == "stream" else ""
        answered = answered or kind == "execute_reply"
        idle = idle or (kind == "status" and content["execution_state"] == "idle")
    return said


@pytest.fixture(scope="module")
def image(engine: Any, cpu_image: str) -> Iterator[str]:
    """The small CPU image with Jupyter on top; its other layers are those of the CPU image."""
    tag = f"vnquant-localrt:{uuid.uuid4().hex[:12]}"
    source = image_context.commit(image_context.checkout())
    options = image_build.Options(base_image=os.environ.get("BASE_IMAGE") or None)
    variant = f"{cpu_image.partition(':')[2]}-jupyter"
    image_build.make(variant, source, options, f"type=image,name={tag},unpack=true")
    yield tag
    engine.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def runtime(image: str, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    drive = tmp_path_factory.mktemp("drive")
    try:
        yield served(local_runtime.start(image, drive, port), drive)
    finally:
        local_runtime.stop(port)


def container(engine: Any, runtime: Served) -> Any:
    return engine.containers.get(f"vnquant-local-runtime-{runtime.port}")


def test_it_is_published_on_loopback_alone_and_needs_no_privilege(
    engine: Any, runtime: Served
) -> None:
    found = container(engine, runtime).attrs
    (binding,) = found["HostConfig"]["PortBindings"]["8080/tcp"]
    assert binding == {"HostIp": "127.0.0.1", "HostPort": str(runtime.port)}
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["HostConfig"]["Privileged"] is False


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_the_token_nobody_is_let_in(runtime: Served, token: str) -> None:
    assert runtime.ask("/api/kernels", token=token, Origin=COLAB)[0] == 403
    assert runtime.ask("/api/kernels", token=token, method="POST", Origin=COLAB)[0] == 403
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        runtime.channels(runtime.kernel(), COLAB, token)


def test_colabs_page_is_let_in_and_told_so(runtime: Served) -> None:
    status, headers, _ = runtime.ask("/api/kernelspecs", Origin=COLAB)
    assert status == 200
    assert headers["Access-Control-Allow-Origin"] == COLAB
    assert headers["Access-Control-Allow-Credentials"] == "true"


def test_the_browsers_question_beforehand_is_answered_without_a_token(runtime: Served) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Private_Network": "x"}
    status, headers, _ = runtime.ask(
        "/api/kernels", token="", method="OPTIONS", Origin=COLAB, **asked
    )
    assert status in (200, 204)
    assert headers["Access-Control-Allow-Origin"] == COLAB
    assert headers["Access-Control-Allow-Private-Network"] == "true"
    assert "authorization" in headers["Access-Control-Allow-Headers"]


def test_another_page_is_refused_even_with_the_token(runtime: Served) -> None:
    status, headers, _ = runtime.ask("/api/kernelspecs", Origin=FOREIGN)
    assert status in (403, 404)
    assert headers.get("Access-Control-Allow-Origin") != FOREIGN
    assert runtime.ask("/api/kernels", method="POST", Origin=FOREIGN)[0] in (403, 404)
    kernel = runtime.kernel()
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        runtime.channels(kernel, FOREIGN)
    runtime.channels(kernel, COLAB).close()


def test_a_name_that_is_made_to_point_at_loopback_is_refused(runtime: Served) -> None:
    assert runtime.ask("/api/kernelspecs", Host="example.org")[0] == 403
    assert runtime.ask("/api/kernelspecs", Host=f"localhost:{runtime.port}")[0] == 200


def test_it_is_found_again_and_serves_one_folder(
    runtime: Served, image: str, tmp_path: Path
) -> None:
    again = local_runtime.start(image, runtime.drive, runtime.port)
    assert served(again, runtime.drive) == runtime
    with pytest.raises(UsageError, match="serves"):
        local_runtime.start(image, tmp_path, runtime.port)


def test_a_port_that_is_taken_is_named(image: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RetryableError, match=f"port {port}: is taken"):
            local_runtime.start(image, tmp_path, port)


def test_an_image_without_jupyter_is_refused(cpu_image: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no Jupyter"):
        local_runtime.start(cpu_image, tmp_path, 9000)


def test_what_is_trained_outlives_the_container(
    engine: Any, image: str, port: int, runtime: Served
) -> None:
    """The notebook's cells, then all of them again in another container: nothing is trained anew.

    Runs last: it ends the container that the other tests ask.
    """
    (runtime.drive / "data").mkdir()
    prices = SyntheticMarket().load(("FPT", "VCB"), start=None, end=None)
    prices.to_parquet(runtime.drive / "data" / "prices.parquet")
    cells = (
        "from vnquant.colab import ColabTrainingSetup; setup = ColabTrainingSetup()",
        "setup.initialize()",
        f"results = setup.start_training(['FPT', 'VCB'], **{SETTINGS!r})",
        "print('RUN', results.run_id)",
    )
    runs: list[tuple[str, int]] = []
    tokens: list[str] = []
    for _ in range(2):
        now = served(local_runtime.start(image, runtime.drive, port), runtime.drive)
        channels = now.channels(now.kernel(), COLAB)
        said = "".join(execute(channels, cell) for cell in cells)
        channels.close()
        assert "Drive: /workspace" in said
        run = runtime.drive / "models" / said.rpartition("RUN ")[2].strip()
        runs.append((run.name, (run / "events.jsonl").read_text().count('"event": "epoch"')))
        tokens.append(now.token)
        now.ask("/api/kernels", Origin=FOREIGN)
        log = container(engine, now).logs().decode()
        assert "/api/kernels" in log, "it does tell of requests"
        known = json.dumps(container(engine, now).attrs)
        assert not [t for t in tokens if t in log or t in known]
        assert local_runtime.stop(port)
        assert not engine.containers.list(all=True, filters={"name": f"runtime-{port}"})
        assert (run / "forecast" / "DONE.json").exists()
    assert runs[0] == runs[1]
    assert runs[0][1] > 0
    assert tokens[0] != tokens[1]
