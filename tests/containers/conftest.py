"""A container engine, or a skip; containers that a test starts are gone when it ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def engine() -> Any:
    """A client of the engine."""
    docker = pytest.importorskip("docker", reason="the extra host is not installed")
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine answers ({error})")
    return client


def _image(engine: Any, tag: str) -> str:
    if not engine.images.list(name=tag):
        pytest.skip(f"there is no image {tag}; ./just test-containers builds it")
    return tag


@pytest.fixture(scope="session")
def cpu_image(engine: Any) -> str:
    """The small CPU image."""
    return _image(engine, "vnquant:cpu-wheels")


@pytest.fixture(scope="session")
def publisher_image(engine: Any) -> str:
    """The publisher's image."""
    return _image(engine, "vnquant:publisher")


@pytest.fixture
def label(engine: Any) -> Iterator[str]:
    """A label of the test's own; every container that carries it is removed afterwards."""
    value = f"vnquant.test={uuid.uuid4().hex}"
    yield value
    for container in engine.containers.list(all=True, filters={"label": value}):
        container.remove(force=True, v=True)
