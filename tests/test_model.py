"""The model against hand-written formulas: pooling, classifier features, loss, and where gradients go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from batches import batch_of
from conftest import compose_train
from torch import Tensor

from negexp.config import ModelConfig
from negexp.errors import InputError
from negexp.losses.triplet_ce import TripletCrossEntropy, TripletCrossEntropyOptions
from negexp.model import BiEncoder, Vectors, build_model, zero_shot_config
from negexp.model.bi_encoder import PairClassifier

TEXTS = ["a short text about rent and houses", "another text, about trains", "houses and trains again and again"]


@pytest.fixture
def config() -> ModelConfig:
    return compose_train("experiment=smoke").model


def build(config: ModelConfig, seed: int = 0) -> BiEncoder:
    return build_model(config, seed, TEXTS * 5).model


def some_tokens(lengths: tuple[int, ...] = (5, 3)) -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    return ids * mask, mask


@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_pooling_follows_its_definition(config: ModelConfig, pooling: str) -> None:
    model = build(replace(config, pooling=pooling, retrieval_dim=None, normalize=False)).eval()
    ids, mask = some_tokens()
    output = model.tower("query").encoder(input_ids=ids, attention_mask=mask)
    retrieval, pooled = model(ids, mask, "query")
    for text, length in enumerate((5, 3)):
        states = output.last_hidden_state[text]
        expected = {"cls": states[0], "mean": states[:length].mean(0), "pooler": output.pooler_output[text]}[pooling]
        torch.testing.assert_close(pooled[text], expected)
    torch.testing.assert_close(retrieval, pooled)


def test_padding_does_not_change_an_embedding(config: ModelConfig) -> None:
    model = build(config).eval()
    ids, mask = some_tokens((7, 3))
    together = model(ids, mask, "query")[0][1]
    alone = model(ids[1:, :3], mask[1:, :3], "query")[0][0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_retrieval_head_and_normalisation(config: ModelConfig) -> None:
    model = build(replace(config, retrieval_dim=7, normalize=True)).eval()
    retrieval, pooled = model(*some_tokens(), "query")
    head = model.tower("query").head
    assert isinstance(head, torch.nn.Linear)
    projected = pooled @ head.weight.T + head.bias
    torch.testing.assert_close(retrieval, projected / projected.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("features", ["concat", "hidden", "retrieval"])
def test_classifier_features_are_both_embeddings_and_their_absolute_difference(
    config: ModelConfig, features: str
) -> None:
    classifier = PairClassifier(2, 3, replace(config, classifier_features=features))
    r_p, r_c = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0])
    h_p, h_c = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 0.0])
    by_hand = {
        "retrieval": [1.0, -2.0, 0.5, 4.0, 0.5, 6.0],
        "hidden": [1.0, 2.0, 3.0, 3.0, 2.0, 0.0, 2.0, 0.0, 3.0],
    }
    by_hand["concat"] = by_hand["retrieval"] + by_hand["hidden"]
    expected = torch.tensor(by_hand[features])
    torch.testing.assert_close(classifier.features(r_p, h_p, r_c, h_c), expected)
    logits = classifier(r_p, h_p, r_c, h_c)
    torch.testing.assert_close(logits, classifier.linear.weight @ expected + classifier.linear.bias)


def test_the_original_classifier_has_2688_inputs(config: ModelConfig) -> None:
    assert PairClassifier(128, 768, replace(config, classifier_features="concat")).linear.in_features == 2688


def test_layer_norm_and_activation_come_before_the_classifier(config: ModelConfig) -> None:
    classifier = PairClassifier(2, 2, replace(config, layer_norm=True, activation="relu"))
    parts = [torch.randn(4, 2, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    x = classifier.features(*parts)
    normalised = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = normalised.clamp(min=0) @ classifier.linear.weight.T + classifier.linear.bias
    torch.testing.assert_close(classifier(*parts), expected)


def triplet_ce(**changes: float) -> TripletCrossEntropy:
    keys: dict[str, float] = {"margin": 1.0, "triplet_weight": 1.0, "positive_weight": 1.0, "negative_weight": 1.0}
    return TripletCrossEntropy(
        TripletCrossEntropyOptions(name="triplet_ce", detach_classifier=False, **{**keys, **changes})
    )


class Scripted(PairClassifier):
    """A classifier that gives these logits, one tensor a call."""

    def __init__(self, logits: list[Tensor]) -> None:
        torch.nn.Module.__init__(self)
        self.logits = logits

    def forward(self, *embeddings: Tensor) -> Tensor:
        return self.logits.pop(0)


def test_the_loss_is_the_weighted_sum_of_three_hand_written_parts() -> None:
    generator = torch.Generator().manual_seed(1)
    pairs, k, dim = 3, 2, 4
    point, counter = (torch.randn(pairs, dim, generator=generator) for _ in range(2))
    negative = torch.randn(pairs, k, dim, generator=generator)
    positive_logits = torch.randn(pairs, 2, generator=generator)
    negative_logits = torch.randn(pairs, k, 2, generator=generator)
    loss = triplet_ce(margin=0.7, triplet_weight=2.0, positive_weight=3.0, negative_weight=0.5)
    classifier = Scripted([positive_logits, negative_logits])
    parts = loss(batch_of(point, counter, negative), classifier)
    triplets = [
        max(0.0, float((point[i] - counter[i]).norm() - (point[i] - negative[i, j]).norm()) + 0.7)
        for i in range(pairs)
        for j in range(k)
    ]
    positives = [-float(torch.log_softmax(positive_logits[i], 0)[1]) for i in range(pairs)]
    negatives = [-float(torch.log_softmax(negative_logits[i, j], 0)[0]) for i in range(pairs) for j in range(k)]
    triplet, positive, negative_part = (sum(values) / len(values) for values in (triplets, positives, negatives))
    assert float(parts["triplet"]) == pytest.approx(triplet, abs=1e-5)
    assert float(parts["positive"]) == pytest.approx(positive, abs=1e-5)
    assert float(parts["negative"]) == pytest.approx(negative_part, abs=1e-5)
    assert float(parts["total"]) == pytest.approx(2 * triplet + 3 * positive + 0.5 * negative_part, abs=1e-5)


def test_the_triplet_part_has_a_gradient_where_point_and_negative_are_one(config: ModelConfig) -> None:
    point = torch.ones(1, 3, requires_grad=True)
    loss = triplet_ce(positive_weight=0.0, negative_weight=0.0)
    classifier = Scripted([torch.zeros(1, 2), torch.zeros(1, 1, 2)])
    loss(batch_of(point, torch.zeros(1, 3), point[:, None]), classifier)["total"].backward()
    assert point.grad is not None
    assert torch.isfinite(point.grad).all()


def gradients(model: BiEncoder) -> tuple[bool, bool]:
    """Return whether the encoder and the heads received a gradient."""
    ids, mask = some_tokens((5, 3, 4))
    r, h = model(ids, mask, "query")
    assert model.classifier is not None
    batch = batch_of(r[:1], r[1:2], r[2:3, None])
    batch = replace(batch, query=Vectors(r[:1], h[:1]), candidate=Vectors(r[1:], h[1:]))
    triplet_ce()(batch, model.classifier)["total"].backward()
    encoder = model.tower("query").encoder.parameters()
    return (
        any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in encoder),
        all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.head_parameters()),
    )


def test_gradients_reach_encoder_and_heads(config: ModelConfig) -> None:
    assert gradients(build(config).train()) == (True, True)


def test_a_frozen_encoder_gets_no_gradient_and_no_dropout(config: ModelConfig) -> None:
    model = build(replace(config, freeze_encoder=True, dropout=0.5)).train()
    assert gradients(model) == (False, True)
    assert model.encoder_parameters() == []
    tokens = some_tokens()
    torch.testing.assert_close(model(*tokens, "query"), model(*tokens, "query"), atol=0, rtol=0)


def test_unshared_towers_start_equal_and_learn_apart(config: ModelConfig) -> None:
    model = build(replace(config, shared_encoder=False)).eval()
    tokens = some_tokens()
    query, candidate = model(*tokens, "query")[0], model(*tokens, "candidate")[0]
    torch.testing.assert_close(query, candidate, atol=0, rtol=0)
    query.sum().backward()
    assert all(parameter.grad is None for parameter in model.tower("candidate").parameters())
    assert any(parameter.grad is not None for parameter in model.tower("query").encoder.parameters())


def test_the_same_seed_builds_the_same_weights_and_leaves_the_global_generator_alone(config: ModelConfig) -> None:
    before = torch.random.get_rng_state()
    first, second, other = build(config).state_dict(), build(config).state_dict(), build(config, seed=1).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_zero_shot_model_has_no_heads(config: ModelConfig) -> None:
    built = build_model(zero_shot_config(config), 0, TEXTS * 5, heads=False)
    assert built.model.classifier is None
    retrieval, pooled = built.model.eval()(*some_tokens(), "query")
    torch.testing.assert_close(retrieval, torch.nn.functional.normalize(pooled, dim=1))


def test_an_encoder_that_cannot_be_loaded_says_how_to_fetch_it(config: ModelConfig) -> None:
    with pytest.raises(InputError, match=r"model\.pretrained=/no/such/encoder: .*hf download"):
        build(replace(config, pretrained="/no/such/encoder"))
