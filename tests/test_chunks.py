"""`trainer.chunk_pairs`: the gradients of a whole batch, without keeping its activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from batches import drawn, trainee_of
from conftest import compose_train
from torch import Tensor

import negexp.embedding
from negexp.training.batch import BatchBuilder
from negexp.training.trainee import BiEncoderTrainee

PAIRS = np.arange(16)
NEGATIVES = drawn(np.roll(PAIRS, 1)[:, None])
UNSHARED = ["model.shared_encoder=false", "model.query_head=residual"]


def setting(*overrides: str) -> tuple[BiEncoderTrainee, BatchBuilder]:
    return trainee_of(compose_train("experiment=smoke", "loss=info_nce", *overrides))


def gradients(trainee: BiEncoderTrainee, builder: BatchBuilder) -> list[Tensor]:
    """Return the gradients of one batch with all pairs."""
    torch.manual_seed(7)
    trainee.model.train()
    trainee.model.zero_grad()
    assert trainee.model.classifier is not None
    trainee.loss(builder.build(PAIRS, NEGATIVES), trainee.model.classifier)["total"].backward()
    return [parameter.grad.clone() for parameter in trainee.model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("chunk_pairs", [1, 3, 5, 16, 100])
@pytest.mark.parametrize("more", [[], UNSHARED])
def test_the_gradients_are_those_of_the_whole_batch(more: list[str], chunk_pairs: int) -> None:
    trainee, builder = setting("model.dropout=0", "loss.temperature=1", *more)  # gradients of about 0.1
    whole = gradients(trainee, builder)
    chunked = gradients(trainee, replace(builder, chunk_pairs=chunk_pairs))
    assert len(whole) == len(chunked) > 10
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-6)


def keeping(model: Callable[..., Any], *inputs: Any, use_reentrant: bool) -> Any:
    """Stand in for torch's `checkpoint`: keep all activations."""
    return model(*inputs)


def test_both_passes_of_a_chunk_have_the_same_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    trainee, builder = setting("model.dropout=0.3")
    builder = replace(builder, chunk_pairs=3)
    chunked = gradients(trainee, builder)
    monkeypatch.setattr(negexp.embedding, "checkpoint", keeping)
    kept = gradients(trainee, builder)
    for one, other in zip(kept, chunked, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-6)
    trainee.model.eval()
    assert any((one - other).abs().max() > 1e-4 for one, other in zip(kept, gradients(*setting()), strict=True))


def test_activations_are_not_kept() -> None:
    trainee, builder = setting("model.dropout=0")

    def kept_bytes(builder: BatchBuilder) -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        trainee.model.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            batch = builder.build(PAIRS, NEGATIVES)
        assert batch.query.retrieval.requires_grad
        return sum(kept.values())

    assert kept_bytes(replace(builder, chunk_pairs=2)) < kept_bytes(builder) / 4
