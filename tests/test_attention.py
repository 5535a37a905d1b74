"""Attention and dropout on a CPU against their definitions: values, gradients, and how often what is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from conftest import compose_train
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from negexp import scratch
from negexp.model import attention, build_model
from negexp.model.attention import attend
from negexp.model.dropout import Dropout, drop_mask, kept_scale, replace_dropout

SCALING = 0.4
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def random_rows(rows: int, length: int, dim: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(rows, length, dim, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]


def attended(rows: Sequence[Tensor], keys: Tensor | None, dropout: float = 0.0) -> Tensor:
    query, key, value = rows
    return attend(query, key, value, keys, dropout, SCALING)


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


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5), block=st.sampled_from([1, 60, 10**6]))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_attention_is_its_definition(lengths: list[int], block: int) -> None:
    for dtype, tolerance in TOLERANCE.items():
        rows = random_rows(len(lengths), max(lengths), 3, dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "BLOCK_SCORES", block)
            found = attended(rows, real_keys(lengths))
        query, key, value = (part.double() for part in rows)
        expected = by_definition(query, key, value, lengths)
        torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


def test_without_padding_no_keys_need_to_be_named() -> None:
    rows = random_rows(4, 5, 3)
    assert torch.equal(attended(rows, None), attended(rows, real_keys([5] * 4)))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("block", [60, 10**6])
def test_gradients_are_those_of_small_differences(dropout: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK_SCORES", block)
    rows = [part.requires_grad_() for part in random_rows(4, 6, 3)]

    def function(*parts: Tensor) -> Tensor:
        torch.manual_seed(0)
        return attended(parts, real_keys([6, 4, 1, 6]), dropout)

    assert torch.autograd.gradcheck(function, rows)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_gradients_in_a_training_precision_are_near_those_of_torchs_attention(
    dtype: torch.dtype, tolerance: float
) -> None:
    rows = random_rows(6, 40, 16)
    weights = torch.randn(6, 40, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = [part.to(dtype).requires_grad_() for part in rows]
    (attended(ours, None) * weights.to(dtype)).sum().backward()
    theirs = [part.requires_grad_() for part in rows]
    query, key, value = theirs
    (F.scaled_dot_product_attention(query, key, value, scale=SCALING) * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert float((one.grad - other.grad).norm() / other.grad.norm()) < tolerance


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


def test_training_and_embedding_share_their_memory() -> None:
    scratch._memory.kept.clear()
    rows = random_rows(2, 4, 3)
    with torch.inference_mode():
        expected = attended(rows, None)
    trained = [part.requires_grad_() for part in random_rows(2, 4, 3)]
    found = attended(trained, None)
    kept = found.detach().clone()
    with torch.inference_mode():
        attended(random_rows(2, 4, 3), None)
    found.sum().backward()
    assert torch.equal(kept, found)
    assert torch.equal(kept, expected)


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.5, 0.9, 0.99])
def test_values_are_dropped_as_often_as_asked_and_independently(p: float) -> None:
    torch.manual_seed(0)
    dropped = (drop_mask(torch.Size([1000, 1000]), p) != 0).double()
    assert float(dropped.mean()) == pytest.approx(p, abs=2**-15 + 5 * (p * (1 - p) / 1e6) ** 0.5)
    for lag in (1, 2, 3, 4, 1000):  # four values share one draw
        flat = dropped.flatten()
        both = float((flat[:-lag] * flat[lag:]).mean())
        assert both == pytest.approx(p * p, abs=2**-14 + 6 * (p * p * (1 - p * p) / 1e6) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_is_zero_or_scaled_and_so_is_its_gradient(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.linspace(-3, -1, 999 * 3, dtype=dtype).reshape(999, 3).mT.requires_grad_()  # not contiguous
    dropped = Dropout(p)(values)
    gradient = torch.linspace(1, 2, 999 * 3, dtype=dtype).reshape(3, 999)
    dropped.backward(gradient)
    kept = dropped.detach() != 0
    assert 0 < int((~kept).sum()) < values.numel()
    torch.testing.assert_close(dropped.detach(), values.detach() * kept * kept_scale(p))
    assert values.grad is not None
    torch.testing.assert_close(values.grad, gradient * kept * kept_scale(p))


def test_what_is_kept_grows_by_as_much_as_is_lost() -> None:
    torch.manual_seed(0)
    for p in (0.1, 0.5, 0.9):
        mean = float(Dropout(p)(torch.ones(1000, 1000)).mean())
        assert mean == pytest.approx(1, abs=5 * (p / (1 - p) / 1e6) ** 0.5)


def test_draws_come_from_torchs_generator() -> None:
    values, layer = torch.ones(50, 50), Dropout(0.5)
    torch.manual_seed(7)
    first, second = layer(values), layer(values)
    torch.manual_seed(7)
    assert torch.equal(layer(values), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    values = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)


def test_elsewhere_than_on_a_cpu_torch_drops() -> None:
    assert Dropout(0.5)(torch.ones(3, device="meta")).device.type == "meta"


def test_every_dropout_of_an_encoder_is_replaced() -> None:
    config = replace(compose_train("experiment=smoke").model, dropout=0.3)
    encoder = build_model(config, 0, ["a text of some words"] * 9).model.get_submodule("towers.0.encoder")
    layers = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    assert layers
    assert {(type(layer), layer.p) for layer in layers} == {(Dropout, 0.3)}
    inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.4).eval())
    nested = nn.Sequential(nn.Dropout(0.2), inner)
    for kind in (Dropout, nn.Dropout):
        replace_dropout(nested, kind)
        found = [(type(module), vars(module)["p"], module.training) for module in (nested[0], inner[1])]
        assert found == [(kind, 0.2, True), (kind, 0.4, False)]


def test_what_dropout_returns_can_be_added_to_in_place() -> None:
    values = torch.ones(4, requires_grad=True)
    dropped = Dropout(0.5)(values)
    dropped += 1
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, dropped.detach() - 1)
