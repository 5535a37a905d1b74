"""Attention on a CPU, in blocks of a few rows with whole score matrices.

A block stays in the processor's cache, so matrix products run at full rate. Torch's kernels reach half of that rate
with small heads, and less with dropout. Scores and softmax are computed in float32 or better; probabilities are rounded
for matrix products only, as in flash attention (Dao et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from negexp.model.cpu.dropout import INTEGERS, drop_mask, kept_scale
from negexp.scratch import scratch

BLOCK_SCORES = 2**20  # scores in a block


def attend(query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, dropout: float, scaling: float) -> Tensor:
    """Return softmax(scaling query key^T) value, the probabilities with dropout; all (rows, length, dim).

    `real` is (rows, 1, length), false for padding; None means no padding. When a gradient is needed, the probabilities
    (rows, length, length) are saved in the precision of the inputs.
    """
    output: Tensor = _Attention.apply(query, key, value, real, dropout, scaling)  # type: ignore[no-untyped-call]
    return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, dropout: float, scaling: float
    ) -> Tensor:
        rows, length, keep = *query.shape[:2], any(ctx.needs_input_grad)
        exact = torch.promote_types(query.dtype, torch.float32)
        exact_query, exact_key = query.to(exact), key.to(exact)
        bias = query.new_zeros(rows, 1, length, dtype=exact)
        if real is not None:
            bias.masked_fill_(~real, -torch.inf)
        probabilities, output = query.new_empty(rows if keep else 0, length, length), torch.empty_like(value)
        for block in _blocks(rows, length):
            shape = (len(query[block]), length, length)
            scores, softmax = scratch("scores", shape, exact), scratch("softmax", shape, exact)
            torch.baddbmm(bias[block], exact_query[block], exact_key[block].mT, alpha=scaling, out=scores)
            torch.softmax(scores, -1, out=softmax)
            rounded = probabilities[block] if keep else scratch("rounded", shape, query.dtype)
            rounded.copy_(softmax)
            if dropout > 0:
                _mark_dropped(rounded, dropout)
            torch.bmm(_kept(rounded, dropout), value[block], out=output[block])
        if dropout > 0:
            output.mul_(kept_scale(dropout))
        ctx.save_for_backward(query, key, value, probabilities, output)
        ctx.dropout, ctx.scaling = dropout, scaling
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value.

        With probabilities P, factors M of dropout and output O: dV = (M P)^T dO, and the scores' gradient is
        P (M dO V^T - t), where t is the sum of dO O over the dimensions.
        """
        query, key, value, probabilities, output = ctx.saved_tensors
        (rows, length), exact = query.shape[:2], torch.promote_types(query.dtype, torch.float32)
        total = (gradient.to(exact) * output).sum(-1, keepdim=True) * ctx.scaling  # (rows, length, 1)
        if ctx.dropout > 0:
            gradient = gradient * kept_scale(ctx.dropout)
        exact_gradient, exact_value = gradient.to(exact) * ctx.scaling, value.to(exact)
        d_query, d_key, d_value = (torch.empty_like(part) for part in (query, key, value))
        for block in _blocks(rows, length):
            marked = probabilities[block]
            kept = _kept(marked, ctx.dropout)
            torch.bmm(kept.mT, gradient[block], out=d_value[block])
            d_scores, factors = scratch("scores", marked.shape, exact), scratch("softmax", marked.shape, exact)
            torch.bmm(exact_gradient[block], exact_value[block].mT, out=d_scores)
            if ctx.dropout > 0:
                d_scores.mul_(factors.copy_(kept)).addcmul_(factors.copy_(marked).abs_(), total[block], value=-1)
            else:
                d_scores.sub_(total[block]).mul_(factors.copy_(marked))
            rounded = scratch("rounded", marked.shape, query.dtype).copy_(d_scores)
            torch.bmm(rounded, key[block], out=d_query[block])
            torch.bmm(rounded.mT, query[block], out=d_key[block])
        return d_query, d_key, d_value, None, None, None


def _blocks(rows: int, length: int) -> Iterator[slice]:
    size = max(1, BLOCK_SCORES // length**2)
    return (slice(start, start + size) for start in range(0, rows, size))


def _mark_dropped(probabilities: Tensor, dropout: float) -> None:
    """Give dropped probabilities a negative sign, so that one saved tensor holds both probabilities and mask."""
    integers = INTEGERS[probabilities.element_size()]
    sign = drop_mask(probabilities.shape, dropout).to(integers).bitwise_and_(torch.iinfo(integers).min)
    probabilities.view(integers).bitwise_or_(sign)


def _kept(marked: Tensor, dropout: float) -> Tensor:
    """Return the probabilities with zeros where they are dropped."""
    return marked if dropout == 0 else torch.clamp_min(marked, 0, out=scratch("kept", marked.shape, marked.dtype))
