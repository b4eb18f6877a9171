"""What lies between the products of a layer on a CPU, for `torch.compile` to fuse.

Compiled, each function reads its tensors once and writes its results once. A layer of any depth
of ensemble has the same shapes, so each is compiled once for a width of stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from vnquant.stockformer.model import NORM_EPSILON, norm
from vnquant.stockformer.randomness import random_words

Tensor = torch.Tensor


class Mask(NamedTuple):
    """Dropout of one site: an element stays where its byte reaches its model's level."""

    byte: Tensor
    """uint8 ``[M, N, W]``."""
    level: Tensor
    """int32 ``[M]``."""
    scale: Tensor
    """float32 ``[M]``: what an element that stays is multiplied by."""

    def factor(self) -> Tensor:
        """float32 ``[M, N, W]``: 0 where dropped, else the scale."""
        level, scale = self.level.view(-1, 1, 1), self.scale.view(-1, 1, 1)
        # Compared as int32: inductor's comparison of bytes took three times as long.
        return torch.where(self.byte.to(torch.int32) >= level, scale, 0.0)


def embed_norm(
    projected: Tensor, bias: Tensor, where: Tensor, mask: Mask, gain: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Bias, positions ``[T, D]`` and dropout of the embedding; and the norm of that."""
    where = where.repeat(projected.shape[1] // where.shape[0], 1)
    h = (projected + bias.unsqueeze(1) + where) * mask.factor()
    return h, norm(h, gain, shift)


def residual_norm(
    h: Tensor, branch: Tensor, bias: Tensor, mask: Mask, gain: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """``h`` and a branch's product, with bias and dropout, added; and the norm of that sum."""
    total = h + (branch + bias.unsqueeze(1)) * mask.factor()
    return total, norm(total, gain, shift)


def split_heads(x: Tensor, batch: int, parts: int, heads: int) -> Tensor:
    """``[M, parts * D, N]`` to heads ``[parts, M * B * H, d, T]``, contiguous."""
    models, width, tokens = x.shape
    d, length = width // (parts * heads), tokens // batch
    apart = x.view(models, parts, heads, d, batch, length).permute(1, 0, 4, 2, 3, 5)
    return apart.reshape(parts, models * batch * heads, d, length)


def biased_heads(projected: Tensor, bias: Tensor, batch: int, parts: int, heads: int) -> Tensor:
    """`split_heads` of a product, with its bias ``[M, parts * D]``."""
    return split_heads(projected + bias.unsqueeze(2), batch, parts, heads)


def gelu_(projected: Tensor, bias: Tensor, mask: Mask) -> Tensor:
    """GELU of a biased product, dropped; its slope, dropped too, replaces the product in place.

    Abramowitz & Stegun 7.1.26 (off by less than 2e-7): one exponential serves both.
    """
    x = projected + bias.unsqueeze(1)
    z = x.abs() * 0.5**0.5
    k = 1.0 / (1.0 + 0.3275911 * z)
    bell = torch.exp(-z * z)
    series = k * (1.421413741 + k * (-1.453152027 + k * 1.061405429))
    tail = 0.5 * bell * k * (0.254829592 + k * (-0.284496736 + series))
    cdf = torch.where(x > 0, 1.0 - tail, tail)
    factor = mask.factor()
    projected.copy_((cdf + x * bell * 0.3989422804014327) * factor)
    return x * cdf * factor


def norm_backward(
    x: Tensor, grad: Tensor, gain: Tensor, skip: Tensor, mask: Mask
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward through a norm, the residual around it, and the dropout of the branch before it.

    Args:
        x: what was normed ``[M, N, D]``; grad: gradient of the result; skip: that of the residual.

    Returns:
        Gradient of ``x``, the same dropped (for the branch), and that of the gain ``[M, D]``.
    """
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + NORM_EPSILON)
    normed = centred * scale
    inner = grad * gain.unsqueeze(1)
    along = (inner * normed).mean(-1, keepdim=True)
    total = skip + scale * (inner - inner.mean(-1, keepdim=True) - normed * along)
    return total, total * mask.factor(), (grad * normed).sum(1)


class Pieces(NamedTuple):
    """The functions above, plain or compiled."""

    words: Callable[..., Tensor] = random_words
    embed_norm: Callable[..., tuple[Tensor, Tensor]] = embed_norm
    residual_norm: Callable[..., tuple[Tensor, Tensor]] = residual_norm
    biased_heads: Callable[..., Tensor] = biased_heads
    gelu_: Callable[..., Tensor] = gelu_
    norm_backward: Callable[..., tuple[Tensor, ...]] = norm_backward
