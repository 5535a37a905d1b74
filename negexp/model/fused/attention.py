"""Attention on a CPU, in blocks of a few rows with whole score matrices.

A block stays in the processor's cache, so matrix products run at full rate and each pass over the scores is cheap. In
training, torch's kernels are slower, and with dropout several times so. Without gradients, and with the processor's
matrix unit (AMX), torch's flash attention is two to three times as fast, so it is used there. Scores and softmax are
computed in float32 or better; probabilities and the scores' gradient are rounded for matrix products only, as in flash
attention (Dao et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from negexp.model.fused.dropout import INTEGERS, drop_signs, kept_scale
from negexp.processor import has_instructions
from negexp.scratch import scratch

BLOCK_SCORES = 2**19  # scores in a block
FLASH = has_instructions("amx_bf16")


def attend(query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, dropout: float, scaling: float) -> Tensor:
    """Return softmax(scaling query key^T) value, the probabilities with dropout; all (rows, length, dim).

    `real` is (rows, 1, length), false for padding; None means no padding. When a gradient is needed, the probabilities
    (rows, length, length) are saved in the precision of the inputs.
    """
    trained = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
    if FLASH and query.dtype == torch.bfloat16 and dropout == 0 and not trained:
        q, k, v = (part[:, None] for part in (query, key, value))
        mask = None if real is None else real[:, None]
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)[:, 0]
    output: Tensor = _Attention.apply(query, key, value, real, dropout, scaling)  # type: ignore[no-untyped-call]
    return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None, dropout: float, scaling: float
    ) -> Tensor:
        rows, length, keep = *query.shape[:2], any(ctx.needs_input_grad)
        exact = torch.promote_types(query.dtype, torch.float32)
        exact_query, exact_key = query.to(exact) * scaling, key.to(exact)
        shortest = length if real is None else int(real.sum(-1).min())  # columns from here on can be padding
        probabilities, output = query.new_empty(rows if keep else 0, length, length), torch.empty_like(value)
        for block in _blocks(rows, length):
            shape = (len(query[block]), length, length)
            scores, softmax = scratch("scores", shape, exact), scratch("softmax", shape, exact)
            torch.bmm(exact_query[block], exact_key[block].mT, out=scores)
            if real is not None and shortest < length:
                scores[..., shortest:].masked_fill_(~real[block, :, shortest:], -torch.inf)
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

        With probabilities P, c M the factors of dropout (M is 0 or 1) and output O: dV = c (M P)^T dO, and the scores'
        gradient is c P (M dO V^T - t), where t is the sum of dO O over the dimensions, divided by c.
        """
        query, key, value, probabilities, output = ctx.saved_tensors
        (rows, length), exact = query.shape[:2], torch.promote_types(query.dtype, torch.float32)
        scale = kept_scale(ctx.dropout)
        total = (gradient.to(exact) * output).sum(-1, keepdim=True) / scale  # (rows, length, 1)
        left, right = _with_subtraction(gradient, value, total)
        dropped_scores = -total.to(query.dtype)
        d_query, d_key, d_value = (torch.empty_like(part) for part in (query, key, value))
        for block in _blocks(rows, length):
            marked = probabilities[block]
            torch.bmm(_kept(marked, ctx.dropout).mT, gradient[block], out=d_value[block])
            d_scores = torch.bmm(left[block], right[block].mT, out=scratch("d_scores", marked.shape, query.dtype))
            if ctx.dropout > 0:
                _replace_dropped(d_scores, dropped_scores[block], marked)
            d_scores.mul_(_unmarked(marked, ctx.dropout))
            torch.bmm(d_scores, key[block], out=d_query[block])
            torch.bmm(d_scores.mT, query[block], out=d_key[block])
        d_value.mul_(scale)
        return d_query.mul_(scale * ctx.scaling), d_key.mul_(scale * ctx.scaling), d_value, None, None, None


def _blocks(rows: int, length: int) -> Iterator[slice]:
    size = max(1, BLOCK_SCORES // length**2)
    return (slice(start, start + size) for start in range(0, rows, size))


def _with_subtraction(left: Tensor, right: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Return two matrices whose product is left right^T - total.

    The product subtracts in its own sums, before it rounds: a difference of rounded numbers could lose all digits. In
    bfloat16, `total` is the sum of two columns, which hold 16 bits of it.
    """
    high = total.to(left.dtype)
    columns = [high] if high.dtype == total.dtype else [high, (total - high).to(left.dtype)]
    minus = right.new_full((*right.shape[:2], len(columns)), -1)
    return torch.cat([left, *columns], dim=-1), torch.cat([right, minus], dim=-1)


# Dropped probabilities get a negative sign, so that one saved tensor holds both probabilities and mask. The functions
# below work on the bits of the numbers: operations on integers of 16 bits are several times as fast as on bfloat16.


def _mark_dropped(probabilities: Tensor, dropout: float) -> None:
    bits = _bits(probabilities)
    signs = drop_signs(probabilities.shape, dropout).to(bits.dtype)
    bits.bitwise_or_(signs.bitwise_and_(torch.iinfo(bits.dtype).min))


def _kept(marked: Tensor, dropout: float) -> Tensor:
    """Return the probabilities with zeros where they are dropped."""
    if dropout == 0:
        return marked
    kept = scratch("kept", marked.shape, marked.dtype)
    torch.clamp_min(_bits(marked), 0, out=_bits(kept))
    return kept


def _unmarked(marked: Tensor, dropout: float) -> Tensor:
    """Return the probabilities before dropout."""
    if dropout == 0:
        return marked
    whole, bits = scratch("kept", marked.shape, marked.dtype), _bits(marked)
    torch.bitwise_and(bits, torch.iinfo(bits.dtype).max, out=_bits(whole))
    return whole


def _replace_dropped(values: Tensor, row_values: Tensor, marked: Tensor) -> None:
    """Set the values whose probability is dropped to the value of their row (rows, length, 1)."""
    bits = _bits(values)
    dropped, change = (scratch(name, bits.shape, bits.dtype) for name in ("dropped", "change"))
    torch.bitwise_right_shift(_bits(marked), 8 * marked.element_size() - 1, out=dropped)  # all bits set, or none
    torch.bitwise_xor(bits, _bits(row_values), out=change)
    bits.bitwise_xor_(change.bitwise_and_(dropped))


def _bits(values: Tensor) -> Tensor:
    return values.view(INTEGERS[values.element_size()])
