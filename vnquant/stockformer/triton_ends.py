"""Triton kernels of what surrounds the encoder layers: embedding and last-token attention.

Layout and promises as in `vnquant.stockformer.triton_kernels`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vnquant.stockformer.triton_kernels import _dropping, _kept, _tile


@triton.jit(do_not_specialize=["key_row"], do_not_specialize_on_alignment=["keys"])
def embed(
    x, w, positions, keys, levels, y, tokens: tl.constexpr, length: tl.constexpr, row, key_row,
    at_weight, at_bias,
    F: tl.constexpr, WIDE: tl.constexpr, D: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """``y = drop(x @ W + b + positions)``: ``[M, N, F] -> [M, N, D]``; WIDE is F rounded up."""
    m, r = _tile(tokens, BT)
    d = tl.arange(0, D)
    f = tl.arange(0, WIDE)
    live = (r < tokens)[:, None]
    base = w + m * row
    key, level, scale = _dropping(keys, levels, m, key_row)
    here = tl.load(
        x + (m * tokens + r[:, None]) * F + f[None, :], mask=live & (f < F)[None, :], other=0.0
    )
    weight = tl.load(
        base + at_weight + f[:, None] * D + d[None, :], mask=(f < F)[:, None], other=0.0
    )
    out = tl.dot(here, weight) + tl.load(base + at_bias + d).to(tl.float32)[None, :]
    out += tl.load(positions + (r % length)[:, None] * D + d[None, :])
    out = out * _kept(r, 0, D, D, key, level) * scale
    at = y + (m * tokens + r[:, None]) * D + d[None, :]
    tl.store(at, out.to(y.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["key_row"], do_not_specialize_on_alignment=["keys"])
def embed_backward(
    dy, keys, levels, dx, partial, tokens: tl.constexpr, key_row,
    D: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Gradient before dropout, and ``partial[M, tiles, D]``: its sums for the bias."""
    m, r = _tile(tokens, BT)
    d = tl.arange(0, D)
    live = (r < tokens)[:, None]
    key, level, scale = _dropping(keys, levels, m, key_row)
    at = (m * tokens + r[:, None]) * D + d[None, :]
    g = tl.load(dy + at, mask=live, other=0.0).to(tl.float32)
    g = g * _kept(r, 0, D, D, key, level) * scale
    tl.store(dx + at, g.to(dx.dtype.element_ty), mask=live)
    tl.store(partial + tl.program_id(0).to(tl.int64) * D + d, tl.sum(g, 0))


@triton.jit
def _last_weights(k, query, live, scale, H: tl.constexpr, W: tl.constexpr, BT: tl.constexpr):
    """Attention weights ``[T, H]`` of one query for every head."""
    s = tl.sum(tl.reshape(k * query[None, :], (BT, H, W)), 2) * scale
    s = tl.where(live, s, float("-inf"))
    p = tl.exp(s - tl.max(s, 0)[None, :])
    return p / tl.sum(p, 0)[None, :]


@triton.jit
def last_attention(
    q, kv, y, length, scale,
    D: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """All heads of a window's last token: ``q [windows, D], kv [windows, T, 2, D] -> y like q``."""
    window = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, BT)
    d = tl.arange(0, D)
    live = (t < length)[:, None]
    at = kv + (window * length + t[:, None]) * (2 * D) + d[None, :]
    k = tl.load(at, mask=live, other=0.0).to(tl.float32)
    v = tl.load(at + D, mask=live, other=0.0).to(tl.float32)
    query = tl.load(q + window * D + d).to(tl.float32)
    p = _last_weights(k, query, live, scale, H, W, BT)
    o = tl.sum(tl.reshape(v, (BT, H, W)) * p[:, :, None], 0)
    tl.store(y + window * D + d, tl.reshape(o, (D,)).to(y.dtype.element_ty))


@triton.jit
def last_attention_backward(
    q, kv, dy, dq, dkv, length, scale,
    D: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Gradients of `last_attention`; its weights are computed again."""
    window = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, BT)
    d = tl.arange(0, D)
    live = (t < length)[:, None]
    place = (window * length + t[:, None]) * (2 * D) + d[None, :]
    k = tl.load(kv + place, mask=live, other=0.0).to(tl.float32)
    v = tl.load(kv + place + D, mask=live, other=0.0).to(tl.float32)
    query = tl.load(q + window * D + d).to(tl.float32)
    grad = tl.load(dy + window * D + d).to(tl.float32)
    p = _last_weights(k, query, live, scale, H, W, BT)
    dp = tl.sum(tl.reshape(v * grad[None, :], (BT, H, W)), 2)
    ds = p * (dp - tl.sum(p * dp, 0)[None, :]) * scale
    half = dkv.dtype.element_ty
    wide_ds = tl.reshape(tl.broadcast_to(ds[:, :, None], (BT, H, W)), (BT, D))
    wide_p = tl.reshape(tl.broadcast_to(p[:, :, None], (BT, H, W)), (BT, D))
    tl.store(dq + window * D + d, tl.sum(wide_ds * k, 0).to(half))
    tl.store(dkv + place, (wide_ds * query[None, :]).to(half), mask=live)
    tl.store(dkv + place + D, (wide_p * grad[None, :]).to(half), mask=live)
