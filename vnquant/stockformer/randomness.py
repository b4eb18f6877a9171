"""Random numbers that belong to a model, never to the stack it is trained in.

Initial weights, shuffles and dropout are functions of (seed, symbol, member) and, for the last
two, of the model's own epoch or step. So FPT trained alone, with 3 others or with 101 others sees
the same numbers, and a resumed run continues them without any generator state to save.

Dropout hashes a counter: a 32-bit multiply-xorshift mix in the style of Wellons' low-bias hashes,
keyed per (model, step, site). One hash yields four bytes, one for each of four neighbouring
elements, which makes the drop probability a multiple of 1/256 (0.10 becomes 26/256 = 0.1016).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

_GOLDEN = -1640531527  # 0x9E3779B9 as int32
_MUL1 = 569420461  # 0x21F0AAAD
_MUL2 = 1935289751  # 0x735A2D97


def model_seed(seed: int, symbol: str, member: int, purpose: str) -> int:
    """A 128-bit key for one model and one purpose."""
    text = f"vnquant/{seed}/{symbol}/{member}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def generator(seed: int, symbol: str, member: int, purpose: str) -> np.random.Generator:
    """A counter-based generator for one model and one purpose."""
    return np.random.Generator(np.random.Philox(key=model_seed(seed, symbol, member, purpose)))


def shuffled(seed: int, symbol: str, member: int, epoch: int, count: int) -> np.ndarray:
    """The order of a model's ``count`` training windows in its ``epoch``: int64 ``[count]``."""
    return generator(seed, symbol, member, f"shuffle/{epoch}").permutation(count)


def model_keys(seed: int, symbols: list[str], members: list[int]) -> torch.Tensor:
    """Dropout keys of the stack's models: int32 ``[M, 2]``."""
    raw = [
        model_seed(seed, s, m, "dropout").to_bytes(16, "little")[:8]
        for s, m in zip(symbols, members, strict=True)
    ]
    return torch.from_numpy(np.frombuffer(b"".join(raw), dtype="<i4").reshape(-1, 2).copy())


def _logical_shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    # int32 >> is arithmetic; the mask makes it logical. (torch has no uint32 arithmetic.)
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _logical_shift(x, 16)) * _MUL1
    x = (x ^ _logical_shift(x, 15)) * _MUL2
    return x ^ _logical_shift(x, 15)


def site_keys(keys: torch.Tensor, step: torch.Tensor, sites: int) -> torch.Tensor:
    """Keys for one training step: int32 ``[M, sites, 2]``.

    Args:
        keys: int32 ``[M, 2]`` from `model_keys`.
        step: int32 ``[M]``: each model's own step count.
        sites: how many places of the network drop.
    """
    site = torch.arange(sites, device=keys.device, dtype=torch.int32)
    mixed = _mix(keys ^ (step * _GOLDEN).unsqueeze(1))
    return _mix(mixed.unsqueeze(1) + ((site + 1) * _GOLDEN).view(1, -1, 1))


def random_bytes(key: torch.Tensor, count: int) -> torch.Tensor:
    """Uniform bytes: uint8 or int32 in 0..255, ``[M, count]``; ``count`` is a multiple of 4.

    Args:
        key: int32 ``[M, 2]``: the keys of one site.
        count: elements per model.

    Under `torch.compile` each element recomputes its hash, so that everything fuses into the
    consumer; eagerly one hash serves four elements. Both give the same bytes.
    """
    first, second = key[:, :1], key[:, 1:]
    if torch.compiler.is_compiling():
        place = torch.arange(count, device=key.device, dtype=torch.int32)
        x = ((place >> 2) * _GOLDEN) ^ first
        x = (x ^ _logical_shift(x, 16)) * _MUL1
        x = (x ^ _logical_shift(x, 15)) + second
        x = x * _MUL2
        x = x ^ _logical_shift(x, 15)
        return (x >> ((place & 3) << 3)) & 255
    return random_words(key, count).view(torch.uint8)


def random_words(key: torch.Tensor, count: int) -> torch.Tensor:
    """The bytes of `random_bytes`, four to an int32: ``[M, count / 4]``."""
    first, second = key[:, :1], key[:, 1:]
    x = (torch.arange(count // 4, device=key.device, dtype=torch.int32) * _GOLDEN) ^ first
    # In place: this runs for every element that drops, and is bound by memory traffic.
    shifted = torch.empty_like(x)

    def fold(bits: int) -> None:
        torch.bitwise_right_shift(x, bits, out=shifted)
        shifted.bitwise_and_((1 << (32 - bits)) - 1)
        x.bitwise_xor_(shifted)

    fold(16)
    x.mul_(_MUL1)
    fold(15)
    x.add_(second).mul_(_MUL2)
    fold(15)
    return x


def drop_levels(dropout: torch.Tensor) -> torch.Tensor:
    """Probabilities as byte thresholds: int32 ``[M]``, at most 255."""
    return (dropout * 256).round().clamp(0, 255).to(torch.int32)


def keep_scale(level: torch.Tensor) -> torch.Tensor:
    """What elements that stay are multiplied by: float32 ``[M]``, of levels int32 ``[M]``."""
    return 256.0 / (256 - level)


def dropout(x: torch.Tensor, key: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Drop elements of ``x [M, ...]`` and scale the rest by 256 / (256 - level).

    Args:
        key: int32 ``[M, 2]`` of this site and step.
        level: int32 ``[M]`` from `drop_levels`; an element drops when its byte is below it.
    """
    models = x.shape[0]
    count = x[0].numel()
    byte = random_bytes(key, count)
    scale = keep_scale(level).to(x.dtype).view(models, 1)
    if byte.dtype == torch.uint8:
        keep = byte >= level.view(models, 1).to(torch.uint8)
    else:
        keep = byte >= level.view(models, 1)
    return x * (keep * scale).view(x.shape)
