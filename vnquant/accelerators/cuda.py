"""CUDA: bfloat16 with float32 masters, TF32 for what stays float32, repeatable kernels."""

from __future__ import annotations

import os

import torch

from vnquant.accelerators import affinity
from vnquant.accelerators.profile import Profile, usable_cores
from vnquant.spec import TrainingSpec


def visible() -> list[str]:
    """The GPUs this process may use, each as CUDA_VISIBLE_DEVICES names it for one that may use no
    other."""
    count = torch.cuda.device_count()
    named = [n.strip() for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n.strip()]
    return named[:count] or [str(i) for i in range(count)]


def configure(
    training: TrainingSpec,
    *,
    threads: int | None,
    compiled: bool | None,
    cpus: affinity.Cpus | None = None,
) -> Profile:
    # cuBLAS picks its workspace at random among streams unless this is set before first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # A stage before may have left this process on slow cores.
    affinity.bind(cpus or affinity.given())
    torch.set_num_threads(threads or usable_cores())
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN finds bugs in kernels; it costs 85 launches a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    dtype = "float32" if training.precision == "float32" else "bfloat16"
    return Profile(
        device="cuda",
        name=torch.cuda.get_device_name(0),
        dtype=dtype,
        threads=torch.get_num_threads(),
        compile=True if compiled is None else compiled,
    )
