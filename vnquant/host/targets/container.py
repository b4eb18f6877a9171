"""A container of the local engine. CPU and CUDA are two rows of data, not two adapters."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vnquant.errors import RetryableError, UsageError, VnquantError
from vnquant.host import images
from vnquant.host.cpus import parse, usable, written
from vnquant.host.findings import Finding
from vnquant.host.image_engine import client
from vnquant.host.records import age, folder
from vnquant.host.targets import STARTING, LaunchSpec, Record, State
from vnquant.workspace import written_aside

PATIENCE = 15.0
"""Seconds that a status call may take."""
WORKSPACE, PRICES = "/workspace", "/prices"
GPU_HELP = (
    "install the NVIDIA driver and the NVIDIA Container Toolkit, run "
    "`nvidia-ctk runtime configure` and restart Docker; or use --target cpu"
)


@dataclass(frozen=True)
class Row:
    """What tells one container target from the other."""

    name: str
    image: str
    device: str
    gpu: bool


ROWS = {
    "cpu": Row("cpu", "vnquant:cpu", "cpu", gpu=False),
    "cuda": Row("cuda", "vnquant:cuda", "cuda", gpu=True),
}


class ContainerTarget:
    """Containers with a read-only root, no capabilities and no network."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._engine: Any = None

    def preflight(self, launch: LaunchSpec) -> list[Finding]:
        try:
            engine = client()
            engine.ping()
        except VnquantError as error:
            return [Finding("error", error.what, error.fix)]
        except Exception as error:
            return [Finding("error", f"the container engine fails ({_short(error)})", "restart it")]
        found = [self._image(launch)]
        if self.row.gpu:
            found.append(gpu_finding(engine.info()))
        owner = os.stat(launch.workspace).st_uid
        if owner not in (os.geteuid(), 0) and os.geteuid() != 0:
            what = f"{launch.workspace} belongs to another user (uid {owner})"
            found.append(Finding("error", what, "choose a folder of your own with --workspace"))
        if owner == 0:
            found.append(
                Finding(
                    "warning",
                    f"{launch.workspace} belongs to root, so the container runs as root",
                    "give the folder to an ordinary user",
                )
            )
        return found

    def _image(self, launch: LaunchSpec) -> Finding:
        tag = launch.image or self.row.image
        try:
            info = images.inspect(tag)
        except VnquantError as error:
            return Finding("error", f"{error.where}: {error.what}", error.fix)
        why = images.matches_code(info)
        if why is None:
            return Finding("ok", f"{tag} is built from this code")
        # A tree in the middle of a change is its owner's business; another commit is a mistake.
        mild = launch.image is not None or why.startswith("files were changed")
        fix = f"build it again: vnquant image build {info.variant or self.row.name}"
        return Finding("warning" if mild else "error", why, fix)

    def start(self, launch: LaunchSpec, record: Record) -> Record:
        from docker.errors import APIError, DockerException

        engine = client()
        settings, digest = self.settings(launch, record)
        container = None
        try:
            container = engine.containers.create(**settings)
            container.start()
        except (APIError, DockerException) as error:
            if container is not None:
                with contextlib.suppress(DockerException):
                    container.remove(force=True)
            raise explained(error) from error
        return {"container": container.id, "image_digest": digest, "image": settings["image"]}

    def settings(self, launch: LaunchSpec, record: Record) -> tuple[dict[str, Any], str]:
        """Arguments for the engine, and the digest of the image."""
        from docker.types import DeviceRequest, Mount

        tag = launch.image or self.row.image
        info = images.inspect(tag)
        owner = os.stat(launch.workspace)
        # As `mounts`, not `volumes`: a source that is missing is then an error, not a new folder.
        mounts = [Mount(WORKSPACE, str(launch.workspace), type="bind")]
        words = list(launch.words)
        if launch.prices is not None:
            inside = f"{PRICES}/{launch.prices.name}"
            mounts.append(Mount(inside, str(launch.prices), type="bind", read_only=True))
            words += ["--prices", inside]
        spec = f"{WORKSPACE}/runs/{launch.run_id}/spec.json"
        settings: dict[str, Any] = {
            "image": tag,
            "command": [
                *launch.stages,
                *("--spec", spec, "--workspace", WORKSPACE, "--device", self.row.device),
                *words,
            ],
            "labels": {
                "vnquant.run": launch.run_id,
                "vnquant.launch": record["launch"],
                "vnquant.target": self.row.name,
                "vnquant.workspace": str(launch.workspace),
            },
            "environment": {
                "HOME": "/tmp",
                "USER": "vnquant",
                "LOGNAME": "vnquant",
                "VNQUANT_IMAGE_DIGEST": info.manifest_digest,
            },
            "user": f"{owner.st_uid}:{owner.st_gid}",
            "mounts": mounts,
            "read_only": True,
            # torch.compile runs what it has written there.
            "tmpfs": {"/tmp": "rw,nosuid,nodev,exec,size=2g,mode=1777"},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "network_mode": "none",
            "shm_size": "1g",
            "detach": True,
        }
        if launch.cpuset:
            settings["cpuset_cpus"] = written(usable(parse(launch.cpuset)))
        if launch.memory is not None:
            settings["mem_limit"] = settings["memswap_limit"] = launch.memory
        if self.row.gpu:
            settings["device_requests"] = [DeviceRequest(**gpu_request(client().info()))]
        return settings, info.manifest_digest

    def _find(self, record: Record) -> Any:
        """The launch's container, by its label; None if the engine knows none."""
        # One client for all status calls: a new one asks the engine for its version first.
        self._engine = self._engine or client(PATIENCE)
        found = self._engine.containers.list(
            all=True, filters={"label": f"vnquant.launch={record['launch']}"}
        )
        return found[0] if found else None

    def poll(self, record: Record) -> State:
        try:
            container = self._find(record)
        except Exception as error:  # whatever the engine or its socket comes up with
            self._engine = None
            return State("unknown", note=_short(error))
        starting = age(record) < STARTING
        if container is None:
            if starting and "container" not in record:
                return State("unknown", note="its container is being made")
            return State("lost", note="the engine knows no such container any more")
        state = container.attrs["State"]
        if state["Status"] in ("exited", "dead"):
            note = "killed, because it used more memory than it may" if state["OOMKilled"] else ""
            return State("exited", int(state["ExitCode"]), note)
        if state["Status"] == "created":
            if starting:
                return State("unknown", note="its container is being started")
            return State("lost", note="its container was never started")
        return State("running")

    def output(self, record: Record, *, follow: bool) -> Iterator[str]:
        kept, last = folder(record) / f"{record['launch']}.log", ""
        while True:
            with contextlib.suppress(Exception):  # the engine went away: go on where we were
                for stamp, line in _stamped(self._lines(record, last, follow=follow)):
                    if stamp > last:
                        last = stamp
                        yield line
            if kept.exists():  # the container is gone; its output was kept
                with kept.open("rb") as lines:
                    yield from (line for stamp, line in _stamped(lines) if stamp > last)
                return
            if not follow or self.poll(record).status in ("exited", "lost"):
                return
            time.sleep(1.0)

    def _lines(self, record: Record, since: str, *, follow: bool) -> Iterator[bytes]:
        """Output with the engine's time before each line."""
        container = ContainerTarget(self.row)._find(record)
        if container is None:
            return
        # Whole seconds: what was shown already is left out by its time.
        begin = int(dt.datetime.fromisoformat(since[:19] + "+00:00").timestamp()) if since else None
        rest = b""
        for chunk in container.logs(stream=True, follow=follow, timestamps=True, since=begin):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def stop(self, record: Record, grace: float) -> None:
        try:
            container = ContainerTarget(self.row)._find(record)
            if container is not None:
                container.stop(timeout=math.ceil(grace))
        except Exception as error:
            raise RetryableError(
                f"the engine does not answer ({_short(error)})",
                where=f"container of launch {record['launch']}",
                fix="see `docker ps`, and run `vnquant stop` again",
            ) from error

    def remove(self, record: Record) -> bool:
        kept = folder(record) / f"{record['launch']}.log"
        try:
            container = self._find(record)
            if container is not None:
                if not kept.exists():
                    with written_aside(kept) as aside, aside.open("wb") as out:
                        out.writelines(container.logs(stream=True, timestamps=True))
                container.remove()
        except Exception:  # somebody else clears up, or a later command does
            self._engine = None
            return False
        return True


def _stamped(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Lines as (time, text); the time has as many digits for every line, so texts compare."""
    for line in lines:
        stamp, _, text = line.rstrip(b"\r\n").decode(errors="replace").partition(" ")
        yield stamp, text


def gpu_request(info: dict[str, Any]) -> dict[str, Any]:
    """How this engine is asked for every GPU."""
    if "nvidia" not in (info.get("Runtimes") or {}) and _cdi(info):
        return {"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"]}
    return {"count": -1, "capabilities": [["gpu"]]}


def _cdi(info: dict[str, Any]) -> bool:
    """Whether the engine has found NVIDIA devices through CDI."""
    found = info.get("DiscoveredDevices") or []
    return any(str(d.get("ID", "")).startswith("nvidia.com/gpu") for d in found)


def gpu_finding(info: dict[str, Any]) -> Finding:
    """Whether the engine could give a container an NVIDIA GPU."""
    if "nvidia" in (info.get("Runtimes") or {}) or _cdi(info):
        return Finding("ok", "the engine has an NVIDIA runtime")
    return Finding("error", "this engine has no NVIDIA runtime", GPU_HELP)


def explained(error: Exception) -> VnquantError:
    """The engine's error as one of ours, in words that say what to do."""
    text = _short(error)
    if "could not select device driver" in text or "nvidia" in text.lower():
        return UsageError("this engine has no NVIDIA runtime", where="--target cuda", fix=GPU_HELP)
    if "bind source path does not exist" in text:
        return UsageError(text, where="container", fix="see that the folder is there")
    if "No such image" in text:
        return UsageError(text, where="container", fix="build it: vnquant image build cpu")
    return RetryableError(f"the engine refused ({text})", where="container", fix="try again")


def _short(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip().splitlines()[0][:300]
