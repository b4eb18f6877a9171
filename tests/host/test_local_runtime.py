"""What the engine is asked for, without an engine; tests/containers has the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vnquant.errors import UsageError
from vnquant.host.colab.local_runtime import settings

pytest.importorskip("docker", reason="the extra host is not installed")
NVIDIA: dict[str, Any] = {"Runtimes": {"runc": {}, "nvidia": {}}}
PLAIN: dict[str, Any] = {"Runtimes": {"runc": {}}}


def test_the_cuda_image_gets_every_gpu(tmp_path: Path) -> None:
    (request,) = settings("i", "cuda-jupyter", tmp_path, 9000, NVIDIA)["device_requests"]
    assert (request["Count"], request["Capabilities"]) == (-1, [["gpu"]])


def test_without_an_nvidia_runtime_the_cuda_image_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no NVIDIA runtime") as caught:
        settings("i", "cuda-jupyter", tmp_path, 9000, PLAIN)
    assert "NVIDIA Container Toolkit" in caught.value.fix


def test_the_cpu_image_asks_for_none_and_is_the_folders_owner(tmp_path: Path) -> None:
    found = settings("i", "cpu-wheels-jupyter", tmp_path, 9001, PLAIN)
    assert "device_requests" not in found
    assert found["ports"] == {"8080/tcp": ("127.0.0.1", 9001)}
    assert found["user"] == f"{os.getuid()}:{os.getgid()}"
    assert not any("token" in name.lower() for name in found["environment"])
