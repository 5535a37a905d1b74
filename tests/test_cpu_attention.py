"""Attention on a CPU against its definition and against torch's: values, gradients, dropout of probabilities."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from negexp import scratch
from negexp.model.fused import attention
from negexp.model.fused.attention import attend
from negexp.model.fused.dropout import kept_scale

SCALING = 0.4
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def three(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = parts
    return query, key, value


def random_rows(rows: int, length: int, dim: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    return three(torch.randn(rows, length, dim, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))


def real_keys(lengths: list[int]) -> Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])[:, None]


def by_definition(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Return attention computed key by key, in float64."""
    output = torch.zeros_like(value)
    for row, length in enumerate(lengths):
        for place in range(query.shape[1]):
            scores = [SCALING * float(query[row, place] @ key[row, other]) for other in range(length)]
            weights = torch.tensor(scores, dtype=torch.float64).exp()
            output[row, place] = (weights[:, None] * value[row, :length]).sum(0) / weights.sum()
    return output


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    block=st.sampled_from([1, 60, 10**6]),
    flash=st.booleans(),
)
@settings(deadline=None, max_examples=25, derandomize=True)
def test_attention_is_its_definition(lengths: list[int], block: int, flash: bool) -> None:
    for dtype, tolerance in TOLERANCE.items():
        rows = random_rows(len(lengths), max(lengths), 3, dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "BLOCK_SCORES", block)
            patch.setattr(attention, "FLASH", flash)
            found = attend(*rows, real_keys(lengths), 0.0, SCALING)
        expected = by_definition(*three(part.double() for part in rows), lengths)
        torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


def test_no_mask_equals_a_mask_without_padding() -> None:
    rows = random_rows(4, 5, 3)
    assert torch.equal(attend(*rows, None, 0.0, SCALING), attend(*rows, real_keys([5] * 4), 0.0, SCALING))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("block", [60, 10**6])
def test_gradients_equal_finite_differences(dropout: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK_SCORES", block)
    rows = three(part.requires_grad_() for part in random_rows(4, 6, 3))

    def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(0)
        return attend(query, key, value, real_keys([6, 4, 1, 6]), dropout, SCALING)

    assert torch.autograd.gradcheck(attended, rows)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_gradients_in_a_training_precision_are_near_those_of_torchs_attention(
    dtype: torch.dtype, tolerance: float
) -> None:
    rows = random_rows(6, 40, 16)
    weights = torch.randn(6, 40, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = three(part.to(dtype).requires_grad_() for part in rows)
    (attend(*ours, None, 0.0, SCALING) * weights.to(dtype)).sum().backward()
    theirs = three(part.requires_grad_() for part in rows)
    (F.scaled_dot_product_attention(*theirs, scale=SCALING) * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert float((one.grad - other.grad).norm() / other.grad.norm()) < tolerance


def test_flash_attention_is_for_inference_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []

    def flash(query: Tensor, *_: Tensor, **__: object) -> Tensor:
        calls.append(query.shape)
        return query

    monkeypatch.setattr(attention, "FLASH", True)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", flash)
    rows = random_rows(2, 4, 3, torch.bfloat16)
    attend(*rows, None, 0.5, SCALING)
    attend(*random_rows(2, 4, 3), None, 0.0, SCALING)
    query = rows[0].clone().requires_grad_()
    attend(query, *rows[1:], None, 0.0, SCALING)
    assert not calls
    with torch.inference_mode():
        attend(query, *rows[1:], None, 0.0, SCALING)
    attend(*rows, None, 0.0, SCALING)
    assert calls == [torch.Size([2, 1, 4, 3])] * 2


@given(length=st.integers(2, 40), scale=st.sampled_from([0.1, 1.0, 30.0]))
@settings(deadline=None, max_examples=15, derandomize=True)
def test_the_scores_gradient_is_subtracted_before_it_is_rounded(length: int, scale: float) -> None:
    # with a constant added to all values, gradient value^T and the subtracted total are large and nearly equal
    query, key, value = random_rows(3, length, 8)
    value = value + scale * 10
    weights = torch.randn(3, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rounded = three(part.to(torch.bfloat16) for part in (query, key, value))
    ours = three(part.clone().requires_grad_() for part in rounded)
    attend(*ours, None, 0.0, SCALING).backward(weights.to(torch.bfloat16))
    exact = three(part.double().requires_grad_() for part in rounded)
    attend(*exact, None, 0.0, SCALING).backward(weights.to(torch.bfloat16).double())
    for one, other in zip(ours[:2], exact[:2], strict=True):
        assert one.grad is not None
        assert other.grad is not None
        # bfloat16 keeps 8 bits: probabilities and outputs of the size of `scale` are off by 2^-9 of it
        error = float((one.grad.double() - other.grad).abs().max())
        assert error <= 2**-6 * (1 + scale * 10) * float(weights.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_takes_probabilities_out_and_scales_the_rest(dtype: torch.dtype) -> None:
    query, key, _ = random_rows(64, 32, 8, dtype)
    identity = torch.eye(32, dtype=dtype).expand(64, 32, 32)  # the output shows the probabilities
    torch.manual_seed(0)
    found = attend(query, key, identity, None, 0.25, SCALING)
    whole = attend(query, key, identity, None, 0.0, SCALING)
    kept = found != 0
    torch.testing.assert_close(found[kept], whole[kept] * kept_scale(0.25), atol=0, rtol=1e-2)
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=5 * (0.25 * 0.75 / found.numel()) ** 0.5)


def test_training_and_embedding_can_share_buffers() -> None:
    scratch._memory.buffers.clear()
    rows = random_rows(2, 4, 3)
    with torch.inference_mode():
        expected = attend(*rows, None, 0.0, SCALING)
    trained = three(part.requires_grad_() for part in random_rows(2, 4, 3))
    found = attend(*trained, None, 0.0, SCALING)
    kept = found.detach().clone()
    with torch.inference_mode():
        attend(*random_rows(2, 4, 3), None, 0.0, SCALING)
    found.sum().backward()
    assert torch.equal(kept, found)
    assert torch.equal(kept, expected)
