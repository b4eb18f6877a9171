"""This machine in place of one of Google's, for Colab's page; see docs/colab-local-runtime.md.

A container of a training image with Jupyter on top. It is published on loopback alone, and makes
its own token, which only this command reads out of it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from vnquant.errors import RetryableError, UsageError
from vnquant.host import images
from vnquant.host.image_engine import client
from vnquant.host.targets.container import explained, gpu_finding, gpu_request

LOOPBACK = "127.0.0.1"
INSIDE = "8080/tcp"
PROGRAM = "vnquant-local-runtime"
DRIVE = "vnquant.local-runtime.drive"
"""Label of such a container: the folder that stands in for Drive."""
READY = 60.0
"""Seconds for the server to answer in."""
GRACE = 60
PAUSE = 0.5


def start(image: str, drive: Path, port: int) -> str:
    """Serve until `stop`; where that is done already, only say at which address.

    Args:
        image: a variant that ends in ``-jupyter``; those of ``cuda`` get every GPU.
        drive: the folder in place of Drive, made if it is missing; the container is its owner.
        port: on 127.0.0.1.

    Returns:
        The address that Colab asks for. It holds the token: show it, and write it nowhere.

    Raises:
        UsageError: no such image, or not one of these; no GPU; another folder is served there.
        RetryableError: the engine refused, the port is taken, or the server did not answer.
    """
    info = images.inspect(image)
    if not info.variant.endswith("-jupyter"):
        raise UsageError(
            f"has no Jupyter (its variant is {info.variant or 'unknown'})",
            where=f"image {image}",
            fix="build one that has: vnquant image build cuda-jupyter, or cpu-pypi-jupyter",
        )
    engine, drive = client(), drive.expanduser().resolve()
    container = _find(engine, port)
    if container is None:
        drive.mkdir(parents=True, exist_ok=True)
        container = _run(engine, settings(image, info.variant, drive, port, engine.info()))
    elif (served := container.labels.get(DRIVE)) != str(drive):
        raise UsageError(
            f"serves {served}",
            where=f"port {port}",
            fix="give another --port, or end it: vnquant colab local-runtime --stop",
        )
    return _address(container)


def stop(port: int) -> bool:
    """End the one at this port, kernels included; returns whether there was one."""
    from docker.errors import NotFound

    container = _find(client(), port)
    if container is None:
        return False
    with contextlib.suppress(NotFound):
        container.stop(timeout=GRACE)
        container.wait(condition="removed")
    return True


def settings(
    image: str, variant: str, drive: Path, port: int, engine: dict[str, Any]
) -> dict[str, Any]:
    """Arguments for the engine.

    Args:
        engine: what it says about itself, for how it is asked for GPUs.

    Raises:
        UsageError: the image is for a GPU, and the engine can give none.
    """
    from docker.types import DeviceRequest, Mount

    owner = os.stat(drive)
    found: dict[str, Any] = {
        "image": image,
        "name": _name(port),
        "labels": {DRIVE: str(drive)},
        "environment": {"VNQUANT_LOCAL_PORT": str(port)},
        "ports": {INSIDE: (LOOPBACK, port)},
        "mounts": [Mount("/workspace", str(drive), type="bind")],
        "user": f"{owner.st_uid}:{owner.st_gid}",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "shm_size": "1g",
        "detach": True,
        "remove": True,
    }
    if variant.startswith("cuda"):
        gpu = gpu_finding(engine)
        if not gpu.ok:
            raise UsageError(gpu.what, where=f"image {image}", fix=gpu.fix)
        found["device_requests"] = [DeviceRequest(**gpu_request(engine))]
    return found


def _name(port: int) -> str:
    return f"{PROGRAM}-{port}"


def _find(engine: Any, port: int) -> Any:
    from docker.errors import NotFound

    with contextlib.suppress(NotFound):
        found = engine.containers.get(_name(port))
        return found if found.status == "running" else None
    return None


def _run(engine: Any, arguments: dict[str, Any]) -> Any:
    from docker.errors import APIError, NotFound

    try:
        return engine.containers.run(**arguments)
    except APIError as error:
        # One that was made and could not start is not removed by the engine itself. A conflict of
        # names (409) is about one that somebody else has made.
        with contextlib.suppress(NotFound):
            if error.status_code != 409:
                engine.containers.get(arguments["name"]).remove(force=True)
        if "port is already allocated" in str(error) or "address already in use" in str(error):
            where = f"port {arguments['ports'][INSIDE][1]}"
            raise RetryableError("is taken", where=where, fix="give another --port") from error
        raise explained(error) from error


def _address(container: Any) -> str:
    """The server's address, as soon as it answers."""
    from docker.errors import APIError

    until = time.monotonic() + READY
    while time.monotonic() < until:
        try:
            if container.exec_run([PROGRAM, "health"]).exit_code == 0:
                return str(container.exec_run([PROGRAM, "url"]).output.decode().strip())
        except APIError:
            break  # it has ended, and is gone with its log
        time.sleep(PAUSE)
    raise RetryableError(
        "the server does not answer",
        where=f"container {container.name}",
        fix=f"look at `docker logs {container.name}`; where it is gone, start the image by hand",
    )
