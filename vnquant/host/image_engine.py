"""The local container engine, asked through the docker SDK."""

from __future__ import annotations

from typing import Any

from vnquant.errors import RetryableError, UsageError


def client(timeout: float | None = None) -> Any:
    """A client of the local container engine.

    Args:
        timeout: seconds to wait for an answer; None: the SDK's own minute.

    Raises:
        UsageError: the extra ``host`` is not installed.
        RetryableError: no engine answers.
    """
    try:
        import docker
        import docker.errors
    except ImportError:
        raise UsageError(
            "the docker SDK is not installed", fix="install it: pip install 'vnquant[host]'"
        ) from None
    try:
        return docker.from_env(timeout=timeout) if timeout else docker.from_env()
    except docker.errors.DockerException as error:
        raise RetryableError(
            f"no container engine answers ({error})",
            fix="start Docker, or see that you may use its socket",
        ) from None
