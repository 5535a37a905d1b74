"""What training changes: learning rates, averaged weights, frozen layers, the query head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from batches import drawn, trainee_of
from conftest import Train, compose_train
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from negexp.config import TrainConfig
from negexp.embedding import TextEncoder
from negexp.errors import InputError
from negexp.model import BiEncoder, build_model
from negexp.model.bi_encoder import QueryHead
from negexp.runtime import choose_runtime
from negexp.tokens import tokenize
from negexp.training.steps import TrainingEpoch
from negexp.training.trainee import BiEncoderTrainee, Trainee

SMOKE = "experiment=smoke"
TEXTS = ["the city should build more cycle lanes", "cars need the space more than bicycles do", "bread", "a b c"] * 5


def train(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> tuple[BiEncoderTrainee, list[list[float]], list[list[Tensor]]]:
    """Train all epochs on the smoke pairs; return the learning rates and the weights of each optimizer step."""
    trainee, builder = trainee_of(config)
    rates: list[list[float]] = []
    weights: list[list[Tensor]] = []
    step = Trainee.step

    def watched(self: BiEncoderTrainee, before: float, after: float) -> None:
        step(self, before, after)
        rates.append([group["lr"] for group in self.optimizer.param_groups])
        weights.append([parameter.detach().clone() for parameter in self.model.parameters()])

    monkeypatch.setattr(Trainee, "step", watched)
    for epoch in range(config.trainer.epochs):
        size = config.trainer.batch_size
        batches = np.array_split(np.arange(16), range(size, 16, size))
        training = TrainingEpoch(trainee, builder, config.trainer, batches, seed=0, epoch=epoch)
        training.train(drawn(np.roll(np.arange(16), 1)[:, None]), None, lambda number, losses: None)
    return trainee, rates, weights


def test_warm_up_in_steps_rises_linearly_and_then_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    lr = ["trainer.lr=1e-3", "trainer.head_lr=5e-4", "trainer.warmup_steps=3", "trainer.batch_size=8"]
    _, rates, _ = train(compose_train(SMOKE, "trainer.epochs=3", *lr), monkeypatch)
    np.testing.assert_allclose(rates, [[r * 1e-3, r * 5e-4] for r in (0.25, 0.5, 0.75, 1, 1, 1)])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_learning_rate_follows_its_schedule_over_all_epochs(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # 16 pairs in batches of 3: 6 batches, with an accumulation of 4 two steps an epoch, after 4 and 6 batches
    options = ["trainer.batch_size=3", "trainer.accumulation=4", "trainer.epochs=3", "trainer.lr=1e-3"]
    changing = [f"trainer.lr_schedule={schedule}", "trainer.warmup_share=0.5", "trainer.head_lr=1e-3"]
    _, rates, _ = train(compose_train(SMOKE, *options, *changing), monkeypatch)
    expected = []
    for before, after in [(0, 4), (4, 6), (6, 10), (10, 12), (12, 16), (16, 18)]:  # batches of all 18
        rise = min(1.0, (after / 18) / 0.5)
        done = max(0.0, before / 18 - 0.5) / 0.5
        fall = {"constant": 1, "linear": 1 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}[schedule]
        expected.append(1e-3 * rise * fall)
    np.testing.assert_allclose([rate[0] for rate in rates], expected, rtol=1e-12)


@pytest.mark.parametrize("average", ["none", "last", "ema"])
def test_the_evaluated_model_has_the_average_of_the_weights(average: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["trainer.batch_size=4", "trainer.epochs=2", "trainer.lr=1e-2", "trainer.average_decay=0.8"]
    trainee, _, weights = train(compose_train(SMOKE, f"trainer.average={average}", *options), monkeypatch)
    assert len(weights) == 8
    expected = [parameter.double() for parameter in weights[0]]
    for step in weights[1:]:
        expected = [0.8 * mean + 0.2 * new.double() for mean, new in zip(expected, step, strict=True)]
    if average == "last":
        expected = [torch.stack(steps).double().mean(0) for steps in zip(*weights[4:], strict=True)]
    if average == "none":
        expected = [parameter.double() for parameter in weights[-1]]
    for mine, wanted in zip(trainee.evaluated.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.double(), wanted, atol=1e-6, rtol=1e-5)
    for mine, last in zip(trainee.model.parameters(), weights[-1], strict=True):
        assert torch.equal(mine, last)


def test_a_commit_with_an_average_has_both_weights_and_evaluates_the_average(run_training: Train) -> None:
    folder = run_training(SMOKE, "trainer.average=ema", "trainer.average_decay=0.9", "trainer.lr=1e-3")
    commit = folder / "checkpoints" / "epoch-001"
    averaged, trained = load_file(commit / "model.safetensors"), load_file(commit / "trained.safetensors")
    assert averaged.keys() == trained.keys()
    assert any(not torch.equal(averaged[name], trained[name]) for name in averaged)


def test_more_epochs_are_refused_where_the_learning_rate_depends_on_their_number(run_training: Train) -> None:
    run_training(SMOKE, "trainer.lr_schedule=linear", "trainer.epochs=1")
    with pytest.raises(InputError, match=r"trainer\.epochs was 1, now 2 \(the learning rate depends on it\)"):
        run_training(SMOKE, "trainer.lr_schedule=linear", "trainer.epochs=2")


def test_two_keys_for_the_warm_up_are_refused() -> None:
    with pytest.raises(InputError, match=r"^trainer\.warmup_steps=3 and trainer\.warmup_share=0\.1: both set"):
        compose_train(SMOKE, "trainer.warmup_steps=3", "trainer.warmup_share=0.1")


def test_a_query_head_may_learn_alone() -> None:
    frozen = ["loss=info_nce", "model.freeze_encoder=true", "model.retrieval_dim=null"]
    assert compose_train(SMOKE, *frozen, "model.query_head=residual").model.freeze_encoder
    with pytest.raises(InputError, match=r"^model\.freeze_encoder=true: only the pair classifier.*query_head=residual"):
        compose_train(SMOKE, *frozen)


@pytest.mark.parametrize("shared", [True, False])
def test_a_frozen_encoder_embeds_the_training_texts_once_for_all_batches(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = ["loss=info_nce", "model.freeze_encoder=true", "model.retrieval_dim=8", "model.query_head=residual"]
    trainee, builder = trainee_of(compose_train(SMOKE, *frozen, f"model.shared_encoder={shared}"))
    model = trainee.model.train()
    count = len(builder.train)
    negatives = drawn(np.roll(np.arange(2 * count), 3)[:count, None])

    def vectors_and_gradients(pair: np.ndarray) -> list[Tensor]:
        model.zero_grad()
        batch = builder.build(pair, negatives)
        parts = [batch.query.retrieval, batch.candidate.retrieval, batch.query.pooled, batch.candidate.pooled]
        torch.stack([(part.square() * torch.arange(part.shape[1])).sum() for part in parts[:2]]).sum().backward()
        return [part.detach() for part in parts] + [p.grad for p in model.parameters() if p.grad is not None]

    batches = [np.arange(4), np.array([7, 2, 0])]
    found = [vectors_and_gradients(batches[0])]
    assert model.training
    with monkeypatch.context() as patch:
        patch.setattr(BiEncoder, "forward", None)  # the first batch has embedded all texts
        found.append(vectors_and_gradients(batches[1]))
    for tower in model.towers:
        monkeypatch.setattr(tower, "frozen", False)  # the encoder stays in evaluation mode
    for batch, one in zip(batches, found, strict=True):
        for part, expected in zip(one, vectors_and_gradients(batch), strict=True):
            torch.testing.assert_close(part, expected, atol=1e-5, rtol=1e-4)
    assert len(found[0]) > 4


def test_frozen_layers_are_the_lowest_and_the_embeddings() -> None:
    config = compose_train(SMOKE, "model.layers=3", "model.freeze_layers=2")
    encoder = build_model(config.model, 0, TEXTS).model.tower("query").encoder
    learning = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    expected = {name for name, _ in encoder.named_parameters() if name.startswith(("encoder.layer.2.", "pooler."))}
    assert learning == expected
    assert len(learning) > 10


@pytest.mark.parametrize("count", [3, 4])
def test_frozen_layers_beyond_the_encoder_are_refused(count: int) -> None:
    config = compose_train(SMOKE, "model.layers=3", f"model.freeze_layers={count}")
    with pytest.raises(InputError, match=rf"^model\.freeze_layers={count}: the encoder has only 3 layers; lower it"):
        build_model(config.model, 0, TEXTS)


def encoder_of(config: TrainConfig, weight: Tensor | None = None) -> TextEncoder:
    """Return the encoder of some texts, with the given weights U of the query head."""
    built = build_model(config.model, 0, TEXTS)
    if built.model.query_head is not None and weight is not None:
        with torch.no_grad():
            built.model.query_head.outer.weight.copy_(weight)
    tokens = tokenize(TEXTS, built.tokenizer, config.model.max_length)
    return TextEncoder(built.model, tokens, choose_runtime("cpu", "float32", None))


@pytest.mark.parametrize("shared", [True, False])
def test_the_query_head_starts_as_the_identity_and_maps_queries_only(shared: bool) -> None:
    options = [SMOKE, "model.retrieval_dim=5", f"model.shared_encoder={shared}"]
    plain, headed = compose_train(*options), compose_train(*options, "model.query_head=residual")
    rows = np.arange(4)
    one, two = encoder_of(plain).embed(rows, "texts"), encoder_of(headed).embed(rows, "texts")
    torch.testing.assert_close(one.query.retrieval, two.query.retrieval, atol=1e-6, rtol=0)

    moved = encoder_of(headed, torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))
    vectors = moved.embed(rows, "texts")
    torch.testing.assert_close(vectors.candidate.retrieval, one.candidate.retrieval, atol=1e-6, rtol=0)
    head = moved.model.query_head
    assert isinstance(head, QueryHead)
    z = one.query.retrieval.double()
    inner = F.gelu(z @ head.inner.weight.double().T + head.inner.bias.double())
    expected = F.normalize(z + inner @ head.outer.weight.double().T, dim=-1)
    torch.testing.assert_close(vectors.query.retrieval.double(), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(vectors.query.retrieval, one.query.retrieval, atol=1e-2)


@pytest.mark.parametrize("shared", [True, False])
def test_the_query_head_learns_with_the_points_of_a_batch(shared: bool) -> None:
    options = ["model.query_head=residual", "model.dropout=0", f"model.shared_encoder={shared}"]
    trainee, builder = trainee_of(compose_train(SMOKE, *options))
    trainee.model.eval()
    assert trainee.model.query_head is not None
    torch.manual_seed(0)
    with torch.no_grad():  # towers that differ, and a head that is not the identity
        for parameter in [*trainee.model.tower("candidate").parameters(), trainee.model.query_head.outer.weight]:
            parameter += 0.1 * torch.randn_like(parameter)
    pair = np.arange(4)
    batch = builder.build(pair, drawn(np.roll(np.arange(16), 1)[:, None]))
    point = builder.encoder.encode("query", builder.train.point[pair])
    torch.testing.assert_close(batch.query.retrieval, trainee.model.as_queries(point).retrieval)
    counter = builder.encoder.encode("candidate", builder.train.counter[pair])
    torch.testing.assert_close(batch.candidate.retrieval[:4], counter.retrieval)
    assert not torch.allclose(batch.query.retrieval, point.retrieval, atol=1e-2)
    assert trainee.model.classifier is not None
    trainee.loss(batch, trainee.model.classifier)["total"].backward()
    gradient = trainee.model.query_head.outer.weight.grad
    assert gradient is not None
    assert bool(gradient.abs().sum() > 0)


def test_the_parameters_of_a_loss_are_trained_without_weight_decay() -> None:
    config = compose_train(SMOKE, "loss=info_nce", "loss.learn_temperature=true", "trainer.weight_decay=0.5")
    trainee, builder = trainee_of(config)
    *others, last = trainee.optimizer.param_groups
    [temperature] = trainee.loss.parameters()
    assert last["params"] == [temperature]
    assert (last["lr"], last["weight_decay"]) == (config.trainer.head_lr, 0.0)
    assert {group["weight_decay"] for group in others} == {0.5}
    batches = np.array_split(np.arange(16), 2)
    before = temperature.item()
    training = TrainingEpoch(trainee, builder, config.trainer, batches, seed=0, epoch=0)
    training.train(drawn(np.roll(np.arange(16), 1)[:, None]), None, lambda number, losses: None)
    assert abs(temperature.item() - before) > 1e-4
