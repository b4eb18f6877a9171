"""One training step's loss and gradient on a CPU, in float32, without autograd.

The same arithmetic as autograd through `vnquant.stockformer.model.forward`, within rounding
(tests/stockformer/test_cpu_step.py states how close). Products go to the BLAS library as large as
they come; what lies between them is as few passes over memory as possible
(`vnquant.stockformer.cpu_pieces`); gradients land directly in the rows that the optimiser reads.

Inside attention a head is stored as ``[d, T]``: batched products that are 60 wide instead of 16
take a third less time (benchmarks/NOTES.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from vnquant.stockformer.cpu_pieces import Mask, Pieces, split_heads
from vnquant.stockformer.layout import Shape
from vnquant.stockformer.model import Drop, positions, without_keys
from vnquant.stockformer.randomness import keep_scale

LARGEST_LOOKBACK = 128


def supports(shape: Shape) -> bool:
    """Whether windows are short enough: each head's attention ``[T, T]`` is kept for backward."""
    return shape.lookback <= LARGEST_LOOKBACK


def gradient(
    shape: Shape,
    rows: torch.Tensor,
    x: torch.Tensor,
    drop: Drop,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    *,
    pieces: Pieces,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss ``[M]`` and its gradient float32 ``[M, P]``.

    Args:
        rows: parameters float32 ``[M, P]``.
        x: scaled windows float32 ``[M, B, T, F]``.
        loss_of: from raw outputs ``[M, B, 2H + 1]`` to the loss of each model ``[M]``.
        pieces: the passes between products.
    """
    step = Step(shape, rows.detach(), x, drop, pieces)
    raw = step.forward().requires_grad_()
    loss = loss_of(raw)
    (grad,) = torch.autograd.grad(loss.sum(), raw)
    return loss.detach(), step.backward(grad)


class _Norm(NamedTuple):
    """A norm in the forward pass, and the branch that was added to the stream just before it."""

    name: str
    branch_bias: str
    stream: torch.Tensor
    result: torch.Tensor
    branch_mask: Mask


class _Attention(NamedTuple):
    """Heads ``[M * B * H, d, T]`` (for ``q`` of the last layer: 1) and what they attended to."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    weights: torch.Tensor
    result: torch.Tensor


class _FeedForward(NamedTuple):
    """The hidden layer after its dropout, and GELU's slope, dropped alike."""

    hidden: torch.Tensor
    slope: torch.Tensor


class Step:
    """Forward and backward pass of a stack.

    The stream is what layers add to: ``[M, N, D]``, with N = B * T tokens, or B after the last
    attention, whose only queries are those of each window's last token.

    Args:
        rows: float32 ``[M, P]``.
        x: windows ``[M, B, T, F]``.
    """

    def __init__(
        self, shape: Shape, rows: torch.Tensor, x: torch.Tensor, drop: Drop, pieces: Pieces
    ) -> None:
        self.shape, self.drop, self.pieces = shape, drop, pieces
        self.batch, self.x = x.shape[1], x.flatten(1, 2)
        self.root = (shape.d_model // shape.heads) ** -0.5
        self.p = shape.views(rows)
        for name, value in self.p.items():
            if name.endswith("kv.bias"):
                self.p[name] = without_keys(value, value.shape[1] // shape.d_model)
            elif value.ndim == 2:
                # A view's stride is P, for which compiled code would be compiled at every depth.
                self.p[name] = value.contiguous()
        self.total = torch.empty_like(rows)
        shape.clear_padding(self.total)
        self.to = shape.views(self.total)
        self.scale = keep_scale(drop.level)
        self.norms: list[_Norm] = []
        self.attentions: list[_Attention] = []
        self.feed_forwards: list[_FeedForward] = []

    def forward(self) -> torch.Tensor:
        """Raw outputs ``[M, B, 2H + 1]``."""
        last = self.shape.layers - 1
        self._embed()
        for i in range(last):
            self._attend(*self._project(f"layers.{i}.qkv", self.norms[-1].result))
            self._after_attention(i, self.norms[-1].stream)
        normed = self.norms[-1].result
        (q,) = self._project(f"layers.{last}.q", self._last_tokens(normed))
        self._attend(q, *self._project(f"layers.{last}.kv", normed))
        self._after_attention(last, self._last_tokens(self.norms[-1].stream).contiguous())
        bias = self.p["head.bias"].unsqueeze(1)
        return torch.baddbmm(bias, self.norms[-1].result, self.p["head.weight"])

    def _embed(self) -> None:
        p, shape = self.p, self.shape
        name, mask = self._norm_before(0), self._mask(0, self.x.shape[1], shape.d_model)
        stream, result = self.pieces.embed_norm(
            torch.bmm(self.x, p["input.weight"]),
            p["input.bias"],
            positions(shape.lookback, shape.d_model, self.x.device, self.x.dtype),
            mask,
            p[f"{name}.gain"],
            p[f"{name}.bias"],
        )
        self.norms.append(_Norm(name, "input.bias", stream, result, mask))

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        scores = q.new_empty(q.shape[0], q.shape[2], k.shape[2])
        torch.baddbmm(scores, q.transpose(1, 2), k, beta=0, alpha=self.root, out=scores)
        weights = torch.softmax(scores, -1, out=scores)
        result = self._merge(torch.bmm(v, weights.transpose(1, 2)))
        self.attentions.append(_Attention(q, k, v, weights, result))

    def _after_attention(self, i: int, stream: torch.Tensor) -> None:
        """What layer ``i`` adds to the stream ``[M, N, D]``: attention, then feed-forward."""
        name, site, (_, tokens, d) = f"layers.{i}", 1 + 3 * i, stream.shape
        attended = self.attentions[-1].result.transpose(1, 2)
        self._add(f"{name}.out", stream, attended, self._mask(site, tokens, d), f"{name}.norm2")
        slope = torch.bmm(self.norms[-1].result, self.p[f"{name}.ff1.weight"])
        mask = self._mask(site + 1, tokens, self.shape.d_ff)
        hidden = self.pieces.gelu_(slope, self.p[f"{name}.ff1.bias"], mask)
        self.feed_forwards.append(_FeedForward(hidden, slope))
        mask, following = self._mask(site + 2, tokens, d), self._norm_before(i + 1)
        self._add(f"{name}.ff2", self.norms[-1].stream, hidden, mask, following)

    def _add(self, name: str, stream: torch.Tensor, x: torch.Tensor, mask: Mask, norm: str) -> None:
        """Add a branch, ``x`` through the product ``name``, to the stream, and norm that."""
        p = self.p
        branch, bias = torch.bmm(x, p[f"{name}.weight"]), p[f"{name}.bias"]
        stream, result = self.pieces.residual_norm(
            stream, branch, bias, mask, p[f"{norm}.gain"], p[f"{norm}.bias"]
        )
        self.norms.append(_Norm(norm, f"{name}.bias", stream, result, mask))

    def _norm_before(self, i: int) -> str:
        """The norm that layer ``i``, or else the head, begins with."""
        return f"layers.{i}.norm1" if i < self.shape.layers else "norm"

    def _mask(self, site: int, tokens: int, width: int) -> Mask:
        # A contiguous key: how many sites there are depends on the depth.
        words = self.pieces.words(self.drop.keys[:, site].contiguous(), tokens * width)
        byte = words.view(torch.uint8).view(-1, tokens, width)
        return Mask(byte, self.drop.level, self.scale)

    def _last_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """A view ``[M, B, W]`` of ``[M, N, W]``."""
        return x.view(x.shape[0], self.batch, self.shape.lookback, -1)[:, :, -1]

    def _project(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """``[M, N, D]`` to heads of queries, keys or values ``[parts, M * B * H, d, T]``."""
        weight, bias, shape = self.p[f"{name}.weight"], self.p[f"{name}.bias"], self.shape
        projected = torch.bmm(weight.transpose(1, 2), x.transpose(1, 2))
        parts = bias.shape[1] // shape.d_model
        return self.pieces.biased_heads(projected, bias, self.batch, parts, shape.heads)

    def _merge(self, *parts: torch.Tensor) -> torch.Tensor:
        """The inverse of `split_heads`, each ``[M * B * H, d, T]``, to ``[M, parts * D, N]``."""
        shape, (_, d, tokens) = self.shape, parts[0].shape
        size = (self.x.shape[0], len(parts), shape.heads, d, self.batch, tokens)
        out = parts[0].new_empty(size)
        for i, part in enumerate(parts):
            apart = part.view(-1, self.batch, shape.heads, d, tokens)
            out[:, i].copy_(apart.permute(0, 2, 3, 1, 4))
        return out.view(-1, len(parts) * shape.d_model, self.batch * tokens)

    def backward(self, grad: torch.Tensor) -> torch.Tensor:
        """From the gradient of `forward`'s result to that of the rows, float32 ``[M, P]``."""
        last = self.shape.layers - 1
        torch.sum(grad, 1, out=self.to["head.bias"])
        inner = self._product_backward("head.weight", self.norms[-1].result, grad)
        stream, branch = self._norm_backward(inner, torch.zeros_like(inner))
        stream, attended = self._after_attention_backward(last, stream, branch)
        dq, dk, dv = self._attend_backward(attended)
        normed = self.norms[-1].result
        inner = self._project_backward(f"layers.{last}.kv", normed, dk, dv)
        final = self._last_tokens(normed)
        self._last_tokens(inner).add_(self._project_backward(f"layers.{last}.q", final, dq))
        skip = torch.zeros_like(inner)
        self._last_tokens(skip).copy_(stream)
        stream, branch = self._norm_backward(inner, skip)
        for i in reversed(range(last)):
            stream, attended = self._after_attention_backward(i, stream, branch)
            heads = self._attend_backward(attended)
            inner = self._project_backward(f"layers.{i}.qkv", self.norms[-1].result, *heads)
            stream, branch = self._norm_backward(inner, stream)
        torch.bmm(self.x.transpose(1, 2), branch, out=self.to["input.weight"])
        return self.total

    def _after_attention_backward(
        self, i: int, stream: torch.Tensor, branch: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Through layer ``i``'s feed-forward to the stream and to the attention's result.

        Args:
            stream: gradient of the new stream; branch: that of the product ``ff2``.
        """
        name, (hidden, slope) = f"layers.{i}", self.feed_forwards.pop()
        inner = self._product_backward(f"{name}.ff2.weight", hidden, branch).mul_(slope)
        torch.sum(inner, 1, out=self.to[f"{name}.ff1.bias"])
        inner = self._product_backward(f"{name}.ff1.weight", self.norms[-1].result, inner)
        stream, branch = self._norm_backward(inner, stream)
        torch.bmm(self.attentions[-1].result, branch, out=self.to[f"{name}.out.weight"])
        return stream, torch.bmm(self.p[f"{name}.out.weight"], branch.transpose(1, 2))

    def _attend_backward(self, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """From the gradient of an attention's result ``[M, D, N]`` to that of its heads."""
        q, k, v, weights, _ = self.attentions.pop()
        (grad,) = split_heads(grad, self.batch, 1, self.shape.heads)
        dv = torch.bmm(grad, weights)
        scores = torch._softmax_backward_data(
            torch.bmm(grad.transpose(1, 2), v), weights, -1, grad.dtype
        )
        dq, dk = (torch.empty_like(x) for x in (q, k))
        torch.baddbmm(dq, k, scores.transpose(1, 2), beta=0, alpha=self.root, out=dq)
        torch.baddbmm(dk, q, scores, beta=0, alpha=self.root, out=dk)
        return dq, dk, dv

    def _product_backward(self, name: str, x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """From the gradient of ``x @ weight`` to that of ``x``, and into that of the weight."""
        torch.bmm(x.transpose(1, 2), grad, out=self.to[name])
        return torch.bmm(grad, self.p[name].transpose(1, 2))

    def _project_backward(self, name: str, x: torch.Tensor, *heads: torch.Tensor) -> torch.Tensor:
        """From gradients of heads to that of the ``x`` that they were projected from."""
        grad, bias = self._merge(*heads), self.to[f"{name}.bias"]
        torch.sum(grad, 2, out=bias)
        if len(heads) > 1:
            bias[:, -2 * self.shape.d_model : -self.shape.d_model] = 0.0  # see `without_keys`
        return self._product_backward(f"{name}.weight", x, grad.transpose(1, 2))

    def _norm_backward(
        self, grad: torch.Tensor, skip: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Through the last norm of the forward pass that has not been gone through yet.

        Args:
            grad: gradient of its result; skip: that of its stream from elsewhere.

        Returns:
            Gradients of its stream and of the product that was added to it last.
        """
        norm = self.norms.pop()
        stream, branch, gain = self.pieces.norm_backward(
            norm.stream, grad, self.p[f"{norm.name}.gain"], skip, norm.branch_mask
        )
        self.to[f"{norm.name}.gain"].copy_(gain)
        torch.sum(grad, 1, out=self.to[f"{norm.name}.bias"])
        torch.sum(branch, 1, out=self.to[norm.branch_bias])
        return stream, branch
