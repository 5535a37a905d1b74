"""Losses against plain loops in float64: values, gradients, weights, parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch_of, builder_of, drawn
from conftest import compose_train
from torch import Tensor

from negexp.components import build, names
from negexp.components.parse import parse_component
from negexp.corpus import load_corpus
from negexp.errors import InputError
from negexp.model import Loss, TextBatch, Vectors, build_model
from negexp.model.bi_encoder import PairClassifier
from negexp.runtime import choose_runtime
from negexp.sampling import Negatives
from negexp.tokens import tokenize

PAIRS, K, DIM = 4, 3, 5
TRIPLET = {"name": "triplet", "margin": 0.7}
CLASSIFIER = {"name": "pair_classifier", "positive_weight": 2.0, "negative_weight": 0.5, "detach_classifier": False}


def loss_of(**values: Any) -> Loss:
    built: Loss = build("loss", parse_component("loss", values, "loss"))
    return built


def random_batch(weight: Tensor | None = None) -> TextBatch:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    batch = batch_of(random(PAIRS, DIM), random(PAIRS, DIM), random(PAIRS, K, DIM), weight=weight)
    query, candidate = random(PAIRS, DIM), random(PAIRS * (1 + K), DIM)
    return replace(
        batch, query=replace(batch.query, pooled=query), candidate=replace(batch.candidate, pooled=candidate)
    )


def random_classifier() -> PairClassifier:
    config = replace(compose_train("experiment=smoke").model, classifier_features="concat")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PairClassifier(DIM, DIM, config).double()


SOME = torch.tensor([[1.0, 0.0, 0.5]] * PAIRS, dtype=torch.float64)
WEIGHTS = [None, SOME, torch.zeros_like(SOME)]
PLACES = [(pair, place) for pair in range(PAIRS) for place in range(K)]  # of the negatives


class Leaves:
    """A batch and a classifier, and the gradients of a number with respect to all of their tensors."""

    def __init__(self, weight: Tensor | None) -> None:
        batch, self.classifier = random_batch(weight), random_classifier()
        self.leaves = [
            part.clone().requires_grad_()
            for side in (batch.query, batch.candidate)
            for part in (side.retrieval, side.pooled)
        ]
        query, candidate = Vectors(*self.leaves[:2]), Vectors(*self.leaves[2:])
        self.batch = replace(batch, query=query, candidate=candidate)

    def gradients(self, value: Tensor) -> list[Tensor]:
        leaves = [*self.leaves, *self.classifier.parameters()]
        if not value.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        found = torch.autograd.grad(value, leaves, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]

    def compare(self, found: Tensor, expected: Tensor) -> None:
        assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
        for one, other in zip(self.gradients(found), self.gradients(expected), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)  # torch adds 1e-6 within its triplet distance

    def triplet(self) -> Tensor:
        """Return the triplet loss by a plain loop."""
        query, candidate, values = self.batch.query.retrieval, self.batch.candidate.retrieval, []
        for pair, place in PLACES:
            near, far = candidate[pair], candidate[PAIRS + pair * K + place]
            values.append(torch.clamp((query[pair] - near).norm() - (query[pair] - far).norm() + 0.7, min=0))
        return self.mean(values)

    def cross_entropies(self) -> tuple[Tensor, Tensor]:
        """Return the pair classifier's two cross-entropies by a plain loop."""
        query, candidate = self.batch.query, self.batch.candidate

        def surprise(pair: int, column: int, label: int) -> Tensor:
            logits: Tensor = self.classifier(
                query.retrieval[pair], query.pooled[pair], candidate.retrieval[column], candidate.pooled[column]
            )
            return logits.exp().sum().log() - logits[label]

        positive = torch.stack([surprise(pair, pair, 1) for pair in range(PAIRS)]).mean()
        return positive, self.mean([surprise(pair, PAIRS + pair * K + place, 0) for pair, place in PLACES])

    def mean(self, values: list[Tensor]) -> Tensor:
        weights = [self.batch.weight[place] for place in PLACES]
        weighted = torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum()
        return weighted / max(float(sum(weights)), 1e-9)


@pytest.mark.parametrize("weight", WEIGHTS, ids=["all", "some", "none"])
def test_the_triplet_loss_is_a_weighted_mean_over_negatives(weight: Tensor | None) -> None:
    own = Leaves(weight)
    found = loss_of(**TRIPLET)(own.batch, own.classifier)
    assert found.keys() == {"total", "triplet"}
    assert float(found["total"].detach()) == float(found["triplet"].detach())
    own.compare(found["total"], own.triplet())


@pytest.mark.parametrize("weight", WEIGHTS, ids=["all", "some", "none"])
def test_the_pair_classifiers_loss_is_the_sum_of_two_cross_entropies(weight: Tensor | None) -> None:
    own = Leaves(weight)
    positive, negative = own.cross_entropies()
    found = loss_of(**CLASSIFIER)(own.batch, own.classifier)
    own.compare(found["positive"], positive)
    own.compare(found["negative"], negative)
    own.compare(found["total"], 2 * positive + 0.5 * negative)


@pytest.mark.parametrize("weight", WEIGHTS, ids=["all", "some", "none"])
def test_the_originals_loss_has_the_gradients_of_its_loop(weight: Tensor | None) -> None:
    own = Leaves(weight)
    positive, negative = own.cross_entropies()
    keys = {"margin": 0.7, "positive_weight": 2.0, "negative_weight": 0.5, "detach_classifier": False}
    found = loss_of(name="triplet_ce", triplet_weight=3.0, **keys)(own.batch, own.classifier)
    own.compare(found["total"], 3 * own.triplet() + 2 * positive + 0.5 * negative)


def test_a_term_can_have_any_name() -> None:
    names_of_methods = ["train", "type", "values"]
    terms, weights = dict.fromkeys(names_of_methods, TRIPLET), dict.fromkeys(names_of_methods, 1.0)
    own = Leaves(None)
    found = loss_of(name="weighted_sum", terms=terms, weights=weights)(own.batch, own.classifier)
    assert found.keys() == {"total", "train_triplet", "type_triplet", "values_triplet"}
    own.compare(found["total"], 3 * own.triplet())


def test_triplet_ce_is_the_weighted_sum_of_its_parts_with_the_same_gradients() -> None:
    own = {"margin": 0.7, "positive_weight": 2.0, "negative_weight": 0.5, "detach_classifier": False}
    whole = loss_of(name="triplet_ce", triplet_weight=3.0, **own)
    parts = {"retrieval": TRIPLET, "classifier": CLASSIFIER}
    summed = loss_of(name="weighted_sum", terms=parts, weights={"retrieval": 3.0, "classifier": 1.0})
    classifier, batch = random_classifier(), random_batch()
    one, other = whole(batch, classifier), summed(batch, classifier)
    assert one.keys() == {"total", "triplet", "positive", "negative"}
    assert other.keys() == {"total", "retrieval_triplet", "classifier_positive", "classifier_negative"}
    for name, same in (
        ("total", "total"),
        ("triplet", "retrieval_triplet"),
        ("positive", "classifier_positive"),
        ("negative", "classifier_negative"),
    ):
        torch.testing.assert_close(one[name], other[same])
    weighted = Leaves(WEIGHTS[1])
    totals = [loss(weighted.batch, weighted.classifier)["total"] for loss in (whole, summed)]
    for gradient, same in zip(*map(weighted.gradients, totals), strict=True):
        torch.testing.assert_close(gradient, same)


def test_weights_without_a_term_are_refused() -> None:
    with pytest.raises(InputError, match=r"loss\.weights=.*must have a weight for each of loss\.terms \(one\)"):
        loss_of(name="weighted_sum", terms={"one": TRIPLET}, weights={"two": 1.0})
    with pytest.raises(InputError, match=r"loss\.weights=.*all are 0, so nothing would learn; set one above 0"):
        loss_of(name="weighted_sum", terms={"one": TRIPLET}, weights={"one": 0.0})
    with pytest.raises(InputError, match=r"loss\.weights\.one=null: needs a value, a number"):
        loss_of(name="weighted_sum", terms={"one": TRIPLET}, weights={"one": None})


@pytest.mark.runs
def test_every_loss_has_a_file_of_keys_and_trains(run_training: Any) -> None:
    import pandas as pd

    assert names("loss") == ["info_nce", "pair_classifier", "pair_listwise", "triplet", "triplet_ce", "weighted_sum"]
    both = {"info_nce", "pair_listwise"}  # info_nce_listwise takes their files
    for name in [*sorted({*names("loss")} - both), "info_nce_listwise"]:
        folder = run_training("experiment=smoke", f"loss={name}", "trainer.epochs=1", folder=name)
        metrics = pd.read_csv(folder / "metrics.csv")
        parts = [column for column in metrics if str(column).startswith("loss_")]
        assert parts
        assert np.isfinite(metrics[["loss", *parts]]).all(axis=None)


# ---------------------------------------------------------------- what a batch holds


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("points", [True, False])
def test_a_batch_holds_each_text_in_its_place_and_allows_what_is_not_forbidden(shared: bool, points: bool) -> None:
    config = compose_train("experiment=smoke", f"model.shared_encoder={shared}")
    corpus = load_corpus(config.data)
    split = corpus["train"]
    built = build_model(config.model, 0, [corpus.texts[row] for row in split.texts()])
    model = built.model.eval()
    tokens = tokenize(corpus.texts, built.tokenizer, config.model.max_length)
    builder = builder_of(model, tokens, split, choose_runtime("cpu", "float32", None), points)
    n, pair = len(split), np.array([3, 0, 7])
    argument = np.array([[(row + 1) % n, n + (row + 2) % n] for row in range(n)])
    weight = np.ones((n, 2), dtype=np.float32)
    weight[0, 1] = 0
    with torch.no_grad():
        batch = builder.build(pair, Negatives(argument, np.zeros_like(argument), weight))

        def vector(text: int, role: Any) -> Tensor:
            embedding: Tensor = model(*tokens.pad(tokens.row[[text]]), role)[0][0]
            return embedding

        table = [*split.point, *split.counter]
        columns = [n + row for row in pair] + [row for row in pair if points]
        columns += [int(one) for row in pair for one in argument[row]]
        assert len(batch.candidate.retrieval) == len(columns)
        for place, row in enumerate(pair):
            torch.testing.assert_close(
                batch.query.retrieval[place], vector(split.point[row], "query"), atol=1e-5, rtol=0
            )
            assert columns[int(batch.positive[place])] == n + row
            assert [columns[int(column)] for column in batch.negative[place]] == argument[row].tolist()
            assert batch.allowed[place].tolist() == [one not in (row, n + row) for one in columns]  # no copies here
        texts = [split.point[row] for row in pair] + [table[one] for one in columns]
        number = torch.cat([batch.query_text, batch.text])
        assert int(number.max()) < batch.texts
        for one, text in zip(number, texts, strict=True):
            assert (number == one).tolist() == [other == text for other in texts]
        for place, one in enumerate(columns):
            expected = vector(table[one], "candidate")
            torch.testing.assert_close(batch.candidate.retrieval[place], expected, atol=1e-5, rtol=0)
    assert batch.weight.tolist() == weight[pair].tolist()
    assert batch.pair.tolist() == pair.tolist()
    assert batch.debate is not None
    assert split.debate is not None
    assert batch.debate.tolist() == split.debate[pair].tolist()


def test_the_columns_of_a_batch_mask_copies() -> None:
    config = compose_train("experiment=smoke")
    corpus = load_corpus(config.data)
    split = corpus["train"]
    split = replace(
        split, point=np.where(np.arange(len(split)) == 5, split.point[2], split.point)
    )  # 5 copies 2's point
    built = build_model(config.model, 0, [corpus.texts[row] for row in split.texts()])
    tokens = tokenize(corpus.texts, built.tokenizer, config.model.max_length)
    builder = builder_of(built.model, tokens, split, choose_runtime("cpu", "float32", None), points_are_candidates=True)
    batch = builder.build(np.array([2, 5, 6]), drawn(np.full((len(split), 1), 9)))
    assert batch.point.tolist() == [3, 4, 5]
    assert batch.query_text.tolist() == batch.text[3:6].tolist()
    assert batch.query_text[0] == batch.query_text[1] != batch.query_text[2]
    assert len(set(batch.text[6:].tolist())) == 1  # all three pairs have the same negative
    counters, points, negatives = batch.allowed[0, :3], batch.allowed[0, 3:6], batch.allowed[0, 6:]
    assert counters.tolist() == [False, False, True]
    assert points.tolist() == [False, False, True]
    assert negatives.tolist() == [True] * 3
