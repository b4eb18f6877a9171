"""Triton kernels of an encoder layer: what `vnquant.stockformer.model.layer` does, in fewer passes.

An H100 spends most of a plain layer on moving activations, not on products. Here the wide
feed-forward activations never leave the chip: forward keeps the layer's input, its middle and the
projections; backward computes the rest again. Every program owns its output, so the result does
not depend on the order in which programs run. Products are bfloat16 with float32 sums.

Layout: activations ``[M, N, D]`` contiguous, N tokens of all windows of a model; parameters are
rows ``[M, P]`` in bfloat16 with an element offset for each tensor; gradients go to float32 rows of
the same layout. Shapes: D, the feed-forward width and the head width are powers of two, at least
16; a window has at most 64 (or 128) tokens.

Dropout is that of `vnquant.stockformer.randomness`, bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

GOLDEN = tl.constexpr(0x9E3779B9)
MUL1 = tl.constexpr(0x21F0AAAD)
MUL2 = tl.constexpr(0x735A2D97)
FAST = tl.constexpr(not triton.knobs.runtime.interpret)  # which knows no assembler


@triton.jit
def _tile(tokens: tl.constexpr, BT: tl.constexpr):
    """This program's model, and its rows among the model's tokens (the last tile may run over)."""
    tiles = tl.cdiv(tokens, BT)
    m = (tl.program_id(0) // tiles).to(tl.int64)
    return m, (tl.program_id(0) % tiles) * BT + tl.arange(0, BT)


@triton.jit
def _dropping(keys, levels, m, key_row):
    """A model's dropout keys, its level, and the scale of what stays."""
    key = keys + m * key_row
    level = tl.load(levels + m)
    return key, level, 256.0 / (256 - level).to(tl.float32)


@triton.jit
def _kept(r, first_column, width, COLUMNS: tl.constexpr, key, level):
    """``[rows, COLUMNS]``: 1 where an element stays, else 0; ``key`` points at two words.

    One hash serves four neighbouring columns of a model's ``[N, width]`` elements.
    """
    first = tl.load(key).to(tl.uint32, bitcast=True)
    second = tl.load(key + 1).to(tl.uint32, bitcast=True)
    quad = first_column // 4 + tl.arange(0, COLUMNS // 4)
    x = (r[:, None] * (width // 4) + quad[None, :]).to(tl.uint32) * GOLDEN
    x = x ^ first
    x = (x ^ (x >> 16)) * MUL1
    x = (x ^ (x >> 15)) + second
    x = x * MUL2
    x = x ^ (x >> 15)
    least = level.to(tl.uint32)
    even = tl.interleave((x & 255) >= least, ((x >> 16) & 255) >= least)
    odd = tl.interleave(((x >> 8) & 255) >= least, (x >> 24) >= least)
    return tl.interleave(even, odd).to(tl.float32)


@triton.jit
def _standard(x, D: tl.constexpr):
    """Rows of ``x`` with mean 0 and variance 1, and the reciprocal deviations."""
    centred = x - (tl.sum(x, 1) / D)[:, None]
    rstd = tl.rsqrt(tl.sum(centred * centred, 1) / D + 1e-5)
    return centred * rstd[:, None], rstd


@triton.jit
def _affine(unit, base, at_gain, at_bias, d):
    """A layer norm's output from its standardised input, and its gain."""
    gain = tl.load(base + at_gain + d).to(tl.float32)
    bias = tl.load(base + at_bias + d).to(tl.float32)
    return unit * gain[None, :] + bias[None, :], gain


@triton.jit
def _norm_backward(grad, unit, rstd, gain, D: tl.constexpr):
    """Gradient of the layer norm's input from that of its output."""
    inner = grad * gain[None, :]
    mean = tl.sum(inner, 1) / D
    along = tl.sum(inner * unit, 1) / D
    return rstd[:, None] * (inner - mean[:, None] - unit * along[:, None])


@triton.jit
def _power_of_two(x):
    """``2^x`` in one instruction; Triton's own scales for denormal results, which nobody needs."""
    if FAST:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return tl.exp2(x)


@triton.jit
def _reciprocal(x):
    """``1 / x`` in one instruction, within one unit in the last place."""
    if FAST:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 1.0 / x


@triton.jit
def _normal(x):
    """The standard normal distribution: its cumulative function (error 1e-7) and ``exp(-x^2/2)``.

    Abramowitz & Stegun 7.1.26: one exponential serves both GELU and its slope.
    """
    bell = _power_of_two(-0.72134752 * x * x)
    t = _reciprocal(1.0 + 0.23164189 * tl.abs(x))
    poly = 1.421413741 + t * (-1.453152027 + t * 1.061405429)
    tail = 0.5 * bell * t * (0.254829592 + t * (-0.284496736 + t * poly))
    return tl.where(x < 0, tail, 1.0 - tail), bell


@triton.jit
def norm_linear(
    h, w, y, tokens: tl.constexpr, row, at_gain, at_bias, at_weight, at_shift, zero_from,
    D: tl.constexpr, OUT: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``y[M, N, OUT] = norm(h) @ W + b``; b is zero on D columns from ``zero_from`` (the keys)."""
    m, r = _tile(tokens, BT)
    d = tl.arange(0, D)
    live = (r < tokens)[:, None]
    base = w + m * row
    x = tl.load(h + (m * tokens + r[:, None]) * D + d[None, :], mask=live, other=0.0)
    unit, _ = _standard(x.to(tl.float32), D)
    n, _ = _affine(unit, base, at_gain, at_bias, d)
    n = n.to(h.dtype.element_ty)
    for c in range(0, OUT, BN):
        cols = c + tl.arange(0, BN)
        weight = tl.load(base + at_weight + d[:, None] * OUT + cols[None, :])
        shift = tl.load(base + at_shift + cols).to(tl.float32)
        shift = tl.where((cols >= zero_from) & (cols < zero_from + D), 0.0, shift)
        out = tl.dot(n, weight) + shift[None, :]
        at = y + (m * tokens + r[:, None]) * OUT + cols[None, :]
        tl.store(at, out.to(y.dtype.element_ty), mask=live)


@triton.jit
def norm_linear_backward(
    h, w, dy, dskip, dh, normed, partial, tokens: tl.constexpr, row, at_gain, at_bias, at_weight,
    D: tl.constexpr, OUT: tl.constexpr, BT: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """``dh = dskip + d norm(h) @ W``, and ``normed = norm(h)`` for the weight's gradient.

    ``partial[M, tiles, 2 D + OUT]``: this tile's sums for the gain, the norm's bias and b.
    """
    m, r = _tile(tokens, BT)
    d = tl.arange(0, D)
    live = (r < tokens)[:, None]
    base = w + m * row
    sums = partial + tl.program_id(0).to(tl.int64) * (2 * D + OUT)
    at = (m * tokens + r[:, None]) * D + d[None, :]
    dn = tl.zeros((BT, D), tl.float32)
    for c in range(0, OUT, BN):
        cols = c + tl.arange(0, BN)
        g = tl.load(dy + (m * tokens + r[:, None]) * OUT + cols[None, :], mask=live, other=0.0)
        turned = tl.load(base + at_weight + d[None, :] * OUT + cols[:, None])
        dn = tl.dot(g, turned, dn)
        tl.store(sums + 2 * D + cols, tl.sum(g.to(tl.float32), 0))
    unit, rstd = _standard(tl.load(h + at, mask=live, other=0.0).to(tl.float32), D)
    n, gain = _affine(unit, base, at_gain, at_bias, d)
    tl.store(normed + at, n.to(normed.dtype.element_ty), mask=live)
    out = _norm_backward(dn, unit, rstd, gain, D)
    out += tl.load(dskip + at, mask=live, other=0.0).to(tl.float32)
    tl.store(dh + at, out.to(dh.dtype.element_ty), mask=live)
    tl.store(sums + d, tl.sum(dn * unit, 0))
    tl.store(sums + D + d, tl.sum(dn, 0))


@triton.jit
def _attention_weights(q, k, t, length, scale):
    """Softmax of the scaled scores; columns past the window's length get nothing."""
    s = tl.dot(q, tl.trans(k)) * scale
    s = tl.where((t < length)[None, :], s, float("-inf"))
    p = tl.exp(s - tl.max(s, 1)[:, None])
    return p / tl.sum(p, 1)[:, None]


@triton.jit
def attention(
    qkv, y, length, scale,
    D: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """One head of one window in one tile: ``qkv [windows, T, 3, H, W] -> y [windows, T, H, W]``."""
    window = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    t = tl.arange(0, BT)
    c = tl.arange(0, W)
    live = (t < length)[:, None]
    at = qkv + (window * length + t[:, None]) * (3 * D) + head * W + c[None, :]
    q = tl.load(at, mask=live, other=0.0)
    k = tl.load(at + D, mask=live, other=0.0)
    v = tl.load(at + 2 * D, mask=live, other=0.0)
    p = _attention_weights(q, k, t, length, scale)
    o = tl.dot(p.to(v.dtype), v)
    out = y + (window * length + t[:, None]) * D + head * W + c[None, :]
    tl.store(out, o.to(y.dtype.element_ty), mask=live)


@triton.jit
def attention_backward(
    qkv, dy, dqkv, length, scale,
    D: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Gradients of q, k and v; the attention weights are computed again, as they fit in a tile."""
    window = (tl.program_id(0) // H).to(tl.int64)
    head = tl.program_id(0) % H
    t = tl.arange(0, BT)
    c = tl.arange(0, W)
    live = (t < length)[:, None]
    place = (window * length + t[:, None]) * (3 * D) + head * W + c[None, :]
    q = tl.load(qkv + place, mask=live, other=0.0)
    k = tl.load(qkv + place + D, mask=live, other=0.0)
    v = tl.load(qkv + place + 2 * D, mask=live, other=0.0)
    g = tl.load(
        dy + (window * length + t[:, None]) * D + head * W + c[None, :], mask=live, other=0.0
    )
    p = _attention_weights(q, k, t, length, scale)
    dp = tl.dot(g, tl.trans(v))
    ds = p * (dp - tl.sum(p * dp, 1)[:, None]) * scale
    half = q.dtype
    dv = tl.dot(tl.trans(p.to(half)), g)
    dq = tl.dot(ds.to(half), k)
    dk = tl.dot(tl.trans(ds.to(half)), q)
    tl.store(dqkv + place, dq.to(half), mask=live)
    tl.store(dqkv + place + D, dk.to(half), mask=live)
    tl.store(dqkv + place + 2 * D, dv.to(half), mask=live)


@triton.jit(do_not_specialize=["key_row"], do_not_specialize_on_alignment=["keys"])
def residual_feed_forward(
    h, o, w, keys, levels, middle, y, tokens: tl.constexpr, row, key_row,
    at_out, at_out_bias, at_gain, at_bias, at_w1, at_b1, at_w2, at_b2,
    D: tl.constexpr, FF: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """``middle = h + drop(o @ Wo + bo)`` and ``y = middle + drop(drop(gelu(norm @ W1)) @ W2)``."""
    m, r = _tile(tokens, BT)
    d = tl.arange(0, D)
    live = (r < tokens)[:, None]
    base = w + m * row
    key, level, scale = _dropping(keys, levels, m, key_row)
    half = h.dtype.element_ty
    place = r[:, None] * D + d[None, :]
    at = m * tokens * D + place
    x = tl.load(o + at, mask=live, other=0.0)
    a = tl.dot(x, tl.load(base + at_out + d[:, None] * D + d[None, :]))
    a += tl.load(base + at_out_bias + d).to(tl.float32)[None, :]
    a = a * _kept(r, 0, D, D, key, level) * scale
    mid = (tl.load(h + at, mask=live, other=0.0).to(tl.float32) + a).to(half)
    tl.store(middle + at, mid, mask=live)
    mid = mid.to(tl.float32)
    unit, _ = _standard(mid, D)
    n, _ = _affine(unit, base, at_gain, at_bias, d)
    n = n.to(half)
    total = tl.zeros((BT, D), tl.float32)
    for c in range(0, FF, BF):
        cols = c + tl.arange(0, BF)
        f = tl.dot(n, tl.load(base + at_w1 + d[:, None] * FF + cols[None, :]))
        f += tl.load(base + at_b1 + cols).to(tl.float32)[None, :]
        u = f * _normal(f)[0] * _kept(r, c, FF, BF, key + 2, level) * scale
        total = tl.dot(u.to(half), tl.load(base + at_w2 + cols[:, None] * D + d[None, :]), total)
    total += tl.load(base + at_b2 + d).to(tl.float32)[None, :]
    out = mid + total * _kept(r, 0, D, D, key + 4, level) * scale
    tl.store(y + at, out.to(half), mask=live)


@triton.jit(do_not_specialize=["key_row"], do_not_specialize_on_alignment=["keys"])
def residual_feed_forward_backward(
    middle, dy, w, keys, levels, dmiddle, da, do, normed, hidden, dhidden, d2, partial,
    tokens: tl.constexpr, row, key_row, at_out, at_gain, at_bias, at_w1, at_b1, at_w2,
    D: tl.constexpr, FF: tl.constexpr, BT: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """Gradients of the activations, and both factors of each weight's gradient.

    ``dmiddle``: of the layer's middle; ``do``: of the attention's output; ``da``, ``d2``: of the
    two products before dropout; ``hidden``, ``dhidden [M, N, FF]``: the second product's input
    and the first one's output gradient; ``normed``: the first one's input.
    ``partial[M, tiles, 4 D + FF]``: this tile's sums for the gain, the norm's bias, b2, bo and b1.
    """
    m, r = _tile(tokens, BT)
    d = tl.arange(0, D)
    live = (r < tokens)[:, None]
    base = w + m * row
    key, level, scale = _dropping(keys, levels, m, key_row)
    half = middle.dtype.element_ty
    sums = partial + tl.program_id(0).to(tl.int64) * (4 * D + FF)
    at = (m * tokens + r[:, None]) * D + d[None, :]
    g = tl.load(dy + at, mask=live, other=0.0).to(tl.float32)
    g2 = (g * _kept(r, 0, D, D, key + 4, level) * scale).to(half)
    tl.store(d2 + at, g2, mask=live)
    tl.store(sums + 2 * D + d, tl.sum(g2.to(tl.float32), 0))
    unit, _ = _standard(tl.load(middle + at, mask=live, other=0.0).to(tl.float32), D)
    n, _ = _affine(unit, base, at_gain, at_bias, d)
    n = n.to(half)
    tl.store(normed + at, n, mask=live)
    dn = tl.zeros((BT, D), tl.float32)
    for c in range(0, FF, BF):
        cols = c + tl.arange(0, BF)
        wide = (m * tokens + r[:, None]) * FF + cols[None, :]
        w1 = tl.load(base + at_w1 + d[:, None] * FF + cols[None, :])
        f = tl.dot(n, w1) + tl.load(base + at_b1 + cols).to(tl.float32)[None, :]
        du = tl.dot(g2, tl.trans(tl.load(base + at_w2 + cols[:, None] * D + d[None, :])))
        keep = _kept(r, c, FF, BF, key + 2, level) * scale
        below, bell = _normal(f)
        tl.store(hidden + wide, (f * below * keep).to(half), mask=live)
        df = du * keep * (below + f * bell * 0.3989422804014327)
        tl.store(sums + 4 * D + cols, tl.sum(df, 0))
        df = df.to(half)
        tl.store(dhidden + wide, df, mask=live)
        dn = tl.dot(df, tl.trans(w1), dn)
    # Read again what was needed before the loop: kept through it, it would not fit in registers.
    g = tl.load(dy + at, mask=live, other=0.0).to(tl.float32)
    unit, rstd = _standard(tl.load(middle + at, mask=live, other=0.0).to(tl.float32), D)
    _, gain = _affine(unit, base, at_gain, at_bias, d)
    out = g + _norm_backward(dn, unit, rstd, gain, D)
    tl.store(dmiddle + at, out.to(half), mask=live)
    a = (out * _kept(r, 0, D, D, key, level) * scale).to(half)
    tl.store(da + at, a, mask=live)
    back = tl.dot(a, tl.trans(tl.load(base + at_out + d[:, None] * D + d[None, :])))
    tl.store(do + at, back.to(half), mask=live)
    tl.store(sums + d, tl.sum(dn * unit, 0))
    tl.store(sums + D + d, tl.sum(dn, 0))
    tl.store(sums + 3 * D + d, tl.sum(a.to(tl.float32), 0))
