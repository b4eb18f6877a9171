"""Pick a device and set it up once, before any work."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from vnquant.accelerators.topology import Kind
from vnquant.errors import UsageError
from vnquant.spec import TrainingSpec

DeviceChoice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Profile:
    """How this process computes. Part of the manifest, never of the spec's digest."""

    device: str
    name: str
    dtype: str
    threads: int
    compile: bool
    topology: str = ""
    cores: str = "all"
    cpus: tuple[int, ...] = ()
    ipex: bool = False
    ipex_reason: str = "not for this device"

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def usable_cores() -> int:
    """Cores this process may run on, which a container or taskset may have narrowed."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_profile(
    training: TrainingSpec,
    *,
    device: DeviceChoice = "auto",
    threads: int | None = None,
    compiled: bool | None = None,
    cores: Kind | None = None,
    ipex: Literal["auto", "on", "off"] = "auto",
    cpus: tuple[int, ...] | None = None,
) -> Profile:
    """Choose and configure the device.

    Args:
        device: auto takes CUDA where there is one.
        threads: of torch on the CPU; None: as many as there are usable cores.
        compiled: use `torch.compile`; None: on CUDA yes, on the CPU no (it needs a C++ compiler
            and a minute before the first step).
        cores: on the CPU, which kind to compute on; None: P cores where there are E cores too.
        ipex: on the CPU, whether to use intel-extension-for-pytorch.
        cpus: bind to these logical CPUs instead of a kind of cores.

    Raises:
        UsageError: CUDA was asked for and is not there.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise UsageError(
            "no CUDA device is visible to PyTorch",
            where="--device cuda",
            fix="use --device cpu, or install a CUDA build of PyTorch and the NVIDIA driver",
        )
    if device != "cpu" and cuda:
        from vnquant.accelerators.cuda import configure as on_cuda

        return on_cuda(training, threads=threads, compiled=compiled, cpus=cpus)
    from vnquant.accelerators.cpu import configure

    return configure(
        training, threads=threads, compiled=compiled, cores=cores, ipex=ipex, cpus=cpus
    )
