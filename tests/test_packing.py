"""Texts without padding against padded ones, both with the same weights: embeddings, gradients, devices, copies.

Flash attention runs on GPUs only. Where there is none, a loop over the texts stands in for the operator, and the tests
compare all that surrounds it.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import compose_train
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from negexp.config import ModelConfig
from negexp.model import BiEncoder, build_model
from negexp.model.fused import groups, packing, varlen
from negexp.model.fused.groups import GroupedTexts
from negexp.model.fused.self_attention import PackedTexts
from negexp.model.fused.varlen import VarlenTexts, takes_varlen

TEXTS = ["a short text about rent and houses", "another text, about trains", "houses and trains again and again"]


@pytest.fixture
def config() -> ModelConfig:
    return replace(compose_train("experiment=smoke").model, dropout=0.0)


def random_batch(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(seed)) * mask, mask


def seen_by(model: BiEncoder) -> list[tuple[int, ...]]:
    """Return a list to which the shape of whatever token ids reach the inside of the encoder is added."""
    seen: list[tuple[int, ...]] = []
    encoder = model.get_submodule("towers.0.encoder.embeddings")
    encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def outputs_and_gradients(
    model: BiEncoder, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    retrieval, pooled = model(ids, mask, "query")
    weights = torch.randn(retrieval.shape, generator=torch.Generator().manual_seed(1))
    (retrieval * weights).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return retrieval.detach(), pooled.detach(), gradients


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), width=st.sampled_from([0, 3, 16, 100]))
@settings(deadline=None, max_examples=15, derandomize=True)
def test_packed_texts_have_the_embeddings_and_gradients_of_padded_ones(
    pooling: str, lengths: list[int], width: int
) -> None:
    config = replace(compose_train("experiment=smoke").model, dropout=0.0, pooling=pooling)
    fused, plain = (build_model(config, 0, TEXTS * 5, fused=fused).model.train() for fused in ("auto", "off"))
    ids, mask = random_batch(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "GROUP_WIDTH", width)
        packed = outputs_and_gradients(fused, ids, mask)
    padded = outputs_and_gradients(plain, ids, mask)
    torch.testing.assert_close(packed[0], padded[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(packed[1], padded[1], atol=1e-5, rtol=1e-4)
    assert len(packed[2]) == len(padded[2])
    for one, other in zip(packed[2], padded[2], strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("fused", "shape"), [("auto", (1, 8)), ("off", (2, 5))])
def test_the_encoder_is_given_packed_texts_on_a_cpu(config: ModelConfig, fused: str, shape: tuple[int, int]) -> None:
    model = build_model(config, 0, TEXTS * 5, fused=fused).model.eval()
    seen = seen_by(model)
    model(*random_batch([5, 3]), "query")
    assert seen == [shape]


def test_texts_stay_padded_on_other_devices(config: ModelConfig) -> None:
    model = build_model(config, 0, TEXTS * 5).model.eval().to("meta")
    seen = seen_by(model)
    with pytest.raises(RuntimeError, match="meta tensors"):  # its masks need values; the ids have gone in by then
        model(*(part.to("meta") for part in random_batch([5, 3])), "query")
    assert seen == [(2, 5)]


def test_hidden_states_return_to_their_tokens_and_padding_is_zero(config: ModelConfig) -> None:
    encoder = build_model(config, 0, TEXTS * 5).model.eval().get_submodule("towers.0.encoder")
    ids, mask = random_batch([2, 5, 1])
    with torch.inference_mode():
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        for row, length in enumerate([2, 5, 1]):
            alone = encoder(input_ids=ids[row : row + 1, :length], attention_mask=mask[row : row + 1, :length])
            torch.testing.assert_close(states[row, :length], alone.last_hidden_state[0], atol=1e-5, rtol=1e-5)
            assert not states[row, length:].any()


def test_a_copy_packs_with_weights_of_its_own(config: ModelConfig) -> None:
    model = build_model(config, 0, TEXTS * 5).model.eval()
    batch = random_batch([5, 3])
    before = model(*batch, "query")[0]
    other = copy.deepcopy(model)
    seen = seen_by(other)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(other(*batch, "query")[0], before)
    assert torch.equal(model(*batch, "query")[0], before)
    assert seen == [(1, 8)]


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_bfloat16_embeddings_and_gradients_are_near_float32_ones(config: ModelConfig, fused: str) -> None:
    ids, mask = random_batch([48, 30, 29, 7, 3])
    full, _, wanted = outputs_and_gradients(build_model(config, 0, TEXTS * 5).model.train(), ids, mask)
    model = build_model(config, 0, TEXTS * 5, fused=fused).model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _, found = outputs_and_gradients(model, ids, mask)
    assert half.dtype == torch.float32
    assert float(torch.cosine_similarity(full, half).min()) > 0.9999
    one, other = (torch.cat([gradient.flatten() for gradient in part]) for part in (found, wanted))
    assert float((one - other).norm() / other.norm()) < 0.02


def test_dropout_drops_in_packed_attention_too(config: ModelConfig) -> None:
    model = build_model(replace(config, dropout=0.5), 0, TEXTS * 5).model.train()
    batch = random_batch([9, 9, 4])
    torch.manual_seed(0)
    first, second = model(*batch, "query")[1], model(*batch, "query")[1]
    torch.manual_seed(0)
    again = model(*batch, "query")[1]
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def loop_over_texts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    *rest: object,
    scale: float,
) -> tuple[torch.Tensor]:
    """Return what flash attention returns, one text after the other, without dropout."""
    assert query_bounds.dtype == torch.int32
    assert torch.equal(query_bounds, key_bounds)
    lengths = query_bounds.diff()
    assert rest == (int(lengths.max()), int(lengths.max()), 0.0, False, False)
    found = []
    for parts in zip(*(part.split(lengths.tolist()) for part in (query, key, value)), strict=True):
        q, k, v = (part.transpose(0, 1) for part in parts)  # (heads, tokens, dim)
        found.append(F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(0, 1))
    return (torch.cat(found),)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_texts_by_their_bounds_are_attended_to_as_in_groups(lengths: list[int]) -> None:
    draws = torch.Generator().manual_seed(len(lengths))
    joint = torch.randn(sum(lengths), 3, 2, 8, dtype=torch.float64, generator=draws)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen, "flash_attention", loop_over_texts)
        for kind in (GroupedTexts, VarlenTexts):
            own = joint.clone().requires_grad_()
            output = kind.of(torch.tensor(lengths)).attend(own, 0.0, 0.4)
            (output * torch.arange(output.numel()).view(output.shape)).sum().backward()
            assert own.grad is not None
            found.append((output.detach(), own.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_an_encoder_that_attends_by_bounds_has_the_embeddings_and_gradients_of_a_padded_one(
    config: ModelConfig, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, pooling=pooling)
    batch = random_batch([9, 9, 4, 1])
    padded = outputs_and_gradients(build_model(config, 0, TEXTS * 5, fused="off").model.train(), *batch)
    model = build_model(config, 0, TEXTS * 5).model.train()
    monkeypatch.setattr(packing, "_kind", lambda encoder, device: VarlenTexts)
    monkeypatch.setattr(varlen, "flash_attention", loop_over_texts)
    packed = outputs_and_gradients(model, *batch)
    for one, other in zip([*packed[:2], *packed[2]], [*padded[:2], *padded[2]], strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_flash_attention_needs_a_gpu_a_short_type_and_a_head_size_of_its_own() -> None:
    assert not takes_varlen(torch.device("cpu"), 32)
    assert not takes_varlen(torch.device("meta"), 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        patch.setattr(torch, "is_autocast_enabled", lambda device: True)
        patch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
        gpu = torch.device("cuda", 0)
        assert [takes_varlen(gpu, size) for size in (8, 32, 256, 4, 12, 264)] == [True, True, True, False, False, False]
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert not takes_varlen(gpu, 32)
        patch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
        patch.setattr(torch, "get_autocast_dtype", lambda device: torch.float32)
        assert not takes_varlen(gpu, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_flash_attention_on_a_gpu_is_near_padded_attention_and_deterministic(config: ModelConfig) -> None:
    ids, mask = (part.cuda() for part in random_batch([48, 30, 29, 7, 3]))
    found = []
    for fused in ("off", "auto", "auto"):
        model = build_model(config, 0, TEXTS * 5, fused=fused).model.train().cuda()
        seen = seen_by(model)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            _, pooled, gradients = outputs_and_gradients(model, ids, mask)
        found.append((pooled, torch.cat([gradient.flatten() for gradient in gradients])))
        assert seen == [(5, 48) if fused == "off" else (1, 117)]
    padded, packed, again = found
    for one, other, same in zip(padded, packed, again, strict=True):
        assert float((one - other).norm() / one.norm()) < 0.02
        assert torch.equal(other, same)


def layer_of(model: BiEncoder) -> nn.Module:
    return model.get_submodule("towers.0.encoder.encoder.layer.0.attention.self")


def test_packed_texts_need_one_product_for_query_key_and_value(config: ModelConfig) -> None:
    fused, plain = (build_model(config, 0, TEXTS * 5, fused=fused).model.double().eval() for fused in ("auto", "off"))
    assert [name for name, _ in fused.named_modules()] == [name for name, _ in plain.named_modules()]
    assert list(fused.state_dict()) == list(plain.state_dict())
    products: list[str] = []
    for name in ("query", "key", "value"):
        part = layer_of(fused).get_submodule(name)
        part.register_forward_hook(lambda module, args, output, name=name: products.append(name))
    states = torch.randn(1, 11, config.hidden_size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = states.clone().requires_grad_(), states.clone().requires_grad_()
    packed = PackedTexts(torch.ones(0), GroupedTexts.of(torch.tensor([6, 2, 3])))
    found = layer_of(fused)(one, packed_texts=packed)[0]
    wanted = torch.cat([layer_of(plain)(part)[0] for part in other.split([6, 2, 3], dim=1)], dim=1)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-9)
    for output in (found, wanted):
        (output * torch.arange(output.numel()).view(output.shape)).sum().backward()
    assert one.grad is not None
    torch.testing.assert_close(one.grad, other.grad, atol=1e-10, rtol=1e-8)
    for (name, parameter), (_, same) in zip(
        layer_of(fused).named_parameters(), layer_of(plain).named_parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, same.grad, atol=1e-10, rtol=1e-8, msg=name)
    assert products == []
    torch.testing.assert_close(layer_of(fused)(states)[0], layer_of(plain)(states)[0])  # texts that are not packed
    assert sorted(products) == ["key", "query", "value"]
