"""Softmax losses against plain loops in float64, with gradients: masks, directions, weights, repeated texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from batches import batch_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import random_classifier
from torch import Tensor

from negexp.components import build
from negexp.components.parse import parse_component
from negexp.config import CONF_DIR
from negexp.errors import InputError
from negexp.model import Loss, PairClassifier, TextBatch, Vectors

PAIRS, K, DIM, TEXTS = 4, 2, 5, 9
ALL = ["query_to_counter", "counter_to_query", "query_to_query", "counter_to_counter"]
FAR = 1e-9


def keys_of(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CONF_DIR / "loss" / f"{name}.yaml").read_text())
    values.pop("defaults", None)  # null schedules
    return values


def loss_of(name: str, **changes: Any) -> Loss:
    built: Loss = build("loss", parse_component("loss", keys_of(name) | changes, "loss"))
    return built


class Example:
    """A batch of few distinct texts, so that columns repeat; the embeddings of the texts are leaves."""

    def __init__(self, seed: int, shared: bool = True, points: bool = True, texts: int = TEXTS) -> None:
        generator = torch.Generator().manual_seed(seed)

        def table() -> Tensor:
            return torch.randn(texts, DIM, generator=generator, dtype=torch.float64).requires_grad_()

        self.as_query, self.pooled_query = table(), table()
        self.as_candidate, self.pooled_candidate = (self.as_query, self.pooled_query) if shared else (table(), table())
        columns = PAIRS * (1 + points + K)
        text = torch.randint(texts, (columns,), generator=generator)
        query_text = torch.randint(texts, (PAIRS,), generator=generator)
        if points:
            text[PAIRS : 2 * PAIRS] = query_text
        allowed = torch.rand(PAIRS, columns, generator=generator) < 0.8
        pair = torch.arange(PAIRS)
        allowed[pair, pair] = False
        if points:
            allowed[pair, PAIRS + pair] = False
        weight = torch.tensor([0.0, 0.5, 1.0, 1.0])[torch.randint(4, (PAIRS, K), generator=generator)]
        weight[0] = 0  # nothing was found for the first pair
        self.batch = TextBatch(
            Vectors(self.as_query[query_text], self.pooled_query[query_text]),
            Vectors(self.as_candidate[text], self.pooled_candidate[text]),
            positive=pair,
            negative=torch.arange(columns - PAIRS * K, columns).view(PAIRS, K),
            allowed=allowed,
            weight=weight,
            text=text,
            query_text=query_text,
            pair=pair,
            debate=None,
            theme=None,
        )

    def gradients(self, value: Tensor) -> list[Tensor]:
        tables = [self.as_query, self.as_candidate, self.pooled_query, self.pooled_candidate]
        found = torch.autograd.grad(value, tables, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(tables, found, strict=True)]


def columns_shown(batch: TextBatch, i: int, in_batch: set[str]) -> Iterator[tuple[int, float]]:
    """Yield column and weight of each candidate of pair i, own negatives first; texts may repeat."""
    own = [(int(batch.negative[i, a]), float(batch.weight[i, a])) for a in range(K) if batch.weight[i, a] > 0]
    yield from ((column, weight) for column, weight in own if batch.allowed[i, column])
    first_negative = len(batch.text) - PAIRS * K
    for column in range(len(batch.text)):
        source = "counters" if column < PAIRS else "points" if column < first_negative else "negatives"
        found = source != "negatives" or batch.weight.flatten()[column - first_negative] > 0
        if source in in_batch and found and batch.allowed[i, column] and column not in dict(own):
            yield column, 1.0


def info_nce_loop(batch: TextBatch, o: dict[str, Any]) -> Tensor:
    """Return the loss, one pair and one wrong match after the other."""

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = (a @ b) / (a.norm() * b.norm())
        return found

    query, candidate = batch.query.retrieval, batch.candidate.retrieval
    in_batch = {source for source in ("counters", "points", "negatives") if o[f"in_batch_{source}"]}
    total = query.new_zeros(())
    for i in range(PAIRS):
        gold = cosine(query[i], candidate[i])
        wrong: list[tuple[Tensor, float]] = []  # cosine, and what is added to the logit

        def show(seen: set[int], text: Tensor, value: Tensor, added: float, wrong: Any = wrong) -> None:
            if int(text) not in seen:
                seen.add(int(text))
                wrong.append((value, added))

        seen = {int(batch.text[i])}
        if "query_to_counter" in o["directions"]:
            own = {int(batch.negative[i, a]) for a in range(K) if batch.weight[i, a] > 0}
            for column, weight in columns_shown(batch, i, in_batch):
                value = cosine(query[i], candidate[column])
                hard = {"own": column in own, "in_batch": column not in own, "all": True}[o["hardness_of"]]
                show(seen, batch.text[column], value, math.log(weight) + o["hardness"] * hard * value.item())
        for j in range(PAIRS):
            if "query_to_query" in o["directions"] and batch.allowed[i, PAIRS + j]:
                show(seen, batch.query_text[j], cosine(query[i], query[j]), 0.0)
        seen = {int(batch.query_text[i])}
        for j in range(PAIRS):
            if "counter_to_query" in o["directions"] and batch.allowed[j, i]:  # counter i is wrong for point j
                show(seen, batch.query_text[j], cosine(candidate[i], query[j]), 0.0)
        for j in range(PAIRS):
            if "counter_to_counter" in o["directions"] and batch.allowed[i, j]:
                show(seen, batch.text[j], cosine(candidate[i], candidate[j]), 0.0)
        if o["guided_margin"] is not None:
            wrong = [(value, added) for value, added in wrong if value.item() <= gold.item() - o["guided_margin"]]
        golds = sum(name in o["directions"] for name in ALL[:2])
        positive = (gold / o["temperature"]).exp()
        # Robinson et al.: sum of importance * e^s / mean importance, importance = e^(beta s)
        exp = [(value / o["temperature"]).exp() for value, _ in wrong]
        times = [math.exp(added) for _, added in wrong]
        importance = [one ** o["beta"] for one in exp]
        negative = query.new_zeros(())
        if wrong:
            mean = sum(t * m for t, m in zip(times, importance, strict=True)) / sum(times)
            negative = sum(t * m * e for t, m, e in zip(times, importance, exp, strict=True)) / mean
        total = total - (positive / (golds * positive + negative)).log()
    return total / PAIRS


DEFAULTS = keys_of("info_nce")


def compare(example: Example, found: Tensor, expected: Tensor) -> None:
    assert found.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    for one, other in zip(example.gradients(found), example.gradients(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@st.composite
def options(draw: Any) -> dict[str, Any]:
    directions = draw(st.lists(st.sampled_from(ALL), min_size=1, unique=True).filter(lambda d: {*ALL[:2]} & {*d}))
    hardness: list[dict[str, float]] = [{}, {"beta": 0.5}]
    hard = draw(st.sampled_from(hardness + [{"hardness": 3.0}] * (ALL[0] in directions)))
    return {
        **DEFAULTS,
        "temperature": draw(st.sampled_from([0.1, 0.7])),
        "directions": directions,
        "in_batch_counters": draw(st.booleans()),
        "in_batch_points": "query_to_query" not in directions and draw(st.booleans()),
        "in_batch_negatives": draw(st.booleans()),
        "hardness_of": draw(st.sampled_from(["own", "in_batch", "all"])),
        "guided_margin": draw(st.sampled_from([None, 0.2, -0.3])),
        **hard,
    }


@settings(max_examples=25, deadline=None, derandomize=True)
@given(options(), st.integers(0, 999), st.booleans())
def test_info_nce_is_the_loop(o: dict[str, Any], seed: int, shared: bool) -> None:
    example = Example(seed, shared)
    found = loss_of(**o)(example.batch, random_classifier())
    assert found["total"] is found["softmax"]
    compare(example, found["total"], info_nce_loop(example.batch, o))


@pytest.mark.parametrize(
    "o", [{}, {"directions": ALL, "in_batch_points": False}, {"beta": 1.0}, {"guided_margin": 0.1}]
)
def test_a_pair_without_wrong_matches_has_finite_gradients(o: dict[str, Any]) -> None:
    example = Example(0)
    batch = replace(example.batch, allowed=torch.zeros_like(example.batch.allowed))
    loss = loss_of("info_nce", **o)
    golds = sum(name in (o.get("directions") or ALL[:1]) for name in ALL[:2])
    total = loss(batch, random_classifier())["total"]
    assert total.item() == pytest.approx(math.log(golds), abs=1e-12)
    assert all(gradient.abs().max() < FAR for gradient in example.gradients(total))


def test_points_that_are_no_columns_are_no_candidates() -> None:
    example = Example(3, points=False)
    o = DEFAULTS | {"in_batch_points": False}
    assert not loss_of(**o).points_are_candidates
    assert loss_of("info_nce").points_are_candidates
    assert loss_of("info_nce", directions=ALL, in_batch_points=False).points_are_candidates  # their masks are needed
    compare(example, loss_of(**o)(example.batch, random_classifier())["total"], info_nce_loop(example.batch, o))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("directions", "modes"),
    [
        (ALL[:1], ["hard_negatives", "in_batch_negatives", "all_negatives"]),
        (ALL, [None]),
        (ALL[:2], [None]),
        (ALL[:3], [None]),
    ],
)
def test_sentence_transformers_gives_the_same_numbers(directions: list[str], modes: list[Any], shared: bool) -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses.multiple_negatives_ranking")
    generator = torch.Generator().manual_seed(5)
    point, counter = torch.randn(2, PAIRS, DIM, generator=generator, dtype=torch.float64)
    negative = torch.randn(PAIRS, K, DIM, generator=generator, dtype=torch.float64)
    with_negatives = "counter_to_counter" not in directions  # theirs compares counters with negatives there
    weight = torch.full((PAIRS, K), float(with_negatives))
    batch = batch_of(point, counter, negative, weight=weight)
    # the points as columns between counters and negatives, for the masks of query_to_query
    inserted = Vectors(torch.cat([counter, point, negative.reshape(-1, DIM)]), torch.zeros(PAIRS * (2 + K), 0))
    allowed = torch.cat([batch.allowed[:, :PAIRS], ~torch.eye(PAIRS).bool(), batch.allowed[:, PAIRS:]], dim=1)
    text = torch.cat([batch.text[:PAIRS], batch.query_text, batch.text[PAIRS:]])
    batch = replace(batch, candidate=inserted, allowed=allowed, text=text, negative=batch.negative + PAIRS)
    theirs_of = {
        "query_to_counter": "query_to_doc",
        "counter_to_query": "doc_to_query",
        "query_to_query": "query_to_query",
        "counter_to_counter": "doc_to_doc",
    }
    ours_of = {"hard_negatives": "own", "in_batch_negatives": "in_batch", "all_negatives": "all"}
    for mode in modes:
        hard = {} if mode is None else {"hardness": 5.0, "hardness_of": ours_of[mode]}
        ours = loss_of("info_nce", directions=directions, in_batch_points=False, **hard)
        theirs = losses.MultipleNegativesRankingLoss(
            None,
            directions=tuple(theirs_of[name] for name in directions),
            hardness_mode=mode,
            hardness_strength=5.0 if mode else 0.0,
        )
        documents = [counter, *(negative.unbind(1) if with_negatives else [])]
        expected = theirs.compute_loss_from_embeddings([point, *documents], torch.zeros(0))
        assert ours(batch, random_classifier())["total"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_learned_temperature_has_the_gradient_of_the_temperature_and_a_floor() -> None:
    batch, classifier = Example(1).batch, random_classifier()
    loss = loss_of("info_nce", temperature=0.2, learn_temperature=True)
    assert [name for name, _ in loss.named_parameters()] == ["log_temperature"]
    assert not list(loss_of("info_nce").parameters())
    found = loss.double()(batch, classifier)
    fixed = loss_of("info_nce", temperature=0.2)(batch, classifier)
    assert found["total"].item() == pytest.approx(fixed["total"].item(), rel=1e-6)
    assert found["temperature"].item() == pytest.approx(0.2)
    found["total"].backward()
    steps = [
        loss_of("info_nce", temperature=0.2 * math.exp(step))(batch, classifier)["total"].item()
        for step in (1e-5, -1e-5)
    ]
    learned = loss.log_temperature
    assert isinstance(learned, torch.nn.Parameter)
    assert learned.grad is not None
    assert learned.grad.item() == pytest.approx((steps[0] - steps[1]) / 2e-5, rel=1e-4)
    with torch.no_grad():
        learned.fill_(math.log(0.001))
    at_floor = loss(batch, classifier)
    assert at_floor["temperature"].item() == pytest.approx(0.01)
    (gradient,) = torch.autograd.grad(at_floor["total"], learned)
    assert gradient.item() != 0  # so that it can rise again


def test_guided_masking_logs_the_share_that_it_leaves_out() -> None:
    batch, masked = Example(2, texts=16).batch, []
    for margin in (-2, -0.5, 0.5, 2):
        masked.append(float(loss_of("info_nce", guided_margin=margin)(batch, random_classifier())["masked"]))
    assert masked == sorted(masked)
    assert masked[0] == 0
    assert masked[-1] == 1


def test_hardness_follows_a_schedule() -> None:
    batch, line = Example(2).batch, {"name": "linear", "start": 5.0, "step": 2.0, "end": 0.0}
    loss = loss_of("info_nce", hardness=line, hardness_of="all")
    values = []
    for progress, hardness in ((0.0, 5.0), (1.0, 3.0), (4.0, 0.0)):
        found = loss(batch.at(progress, []), random_classifier())["total"].item()
        fixed = loss_of("info_nce", hardness=hardness, hardness_of="all")(batch, random_classifier())["total"].item()
        assert found == pytest.approx(fixed, rel=1e-12)
        values.append(found)
    assert len(set(values)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "loss.temperature=0.0: must be between 0.001 and 1000"),
        ({"temperature": 0.005, "learn_temperature": True}, "loss.temperature=0.005: a learned one stays above 0.01"),
        ({"directions": []}, r"loss.directions=\[\]: must have query_to_counter or counter_to_query"),
        ({"directions": ALL[2:], "in_batch_points": False}, "must have query_to_counter or counter_to_query"),
        ({"directions": ["counter_to_point"]}, "loss.directions=counter_to_point: must be one of query_to_counter, "),
        ({"directions": ALL[:1] * 2}, r"loss.directions=\[.*\]: has a direction twice"),
        (
            {"directions": ALL},
            r"\]: would count each point twice beside in_batch_points=true; set that to false or",
        ),
        ({"hardness": 1, "beta": 1}, "loss.beta=1.0: cannot be combined with hardness; set one of them to 0"),
        ({"hardness_of": "some"}, "loss.hardness_of=some: must be one of own, in_batch, all"),
        ({"hardness": 1, "directions": ALL[1:2]}, "leaves out query_to_counter, which hardness is for; add it"),
        ({"hardness": 1e308}, r"loss.hardness=1e\+308: must be between 0 and 1000"),
        ({"temperature": 1e39}, r"loss.temperature=1e\+39: must be between 0.001 and 1000"),
        ({"guided_margin": 3}, "loss.guided_margin=3.0: must be between -2 and 2"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        loss_of("info_nce", **changes)


# ---------------------------------------------------------------- the pair classifier, listwise


def listwise_loop(batch: TextBatch, classifier: PairClassifier, in_batch: bool) -> Tensor:
    query, candidate = batch.query, batch.candidate

    def log_odds(i: int, column: int) -> Tensor:
        logits = classifier(query.retrieval[i], query.pooled[i], candidate.retrieval[column], candidate.pooled[column])
        probability: Tensor = logits.softmax(0)[1]
        return (probability / (1 - probability)).log()

    total = query.retrieval.new_zeros(())
    for i in range(PAIRS):
        seen, denominator = {int(batch.text[i])}, log_odds(i, i).exp()
        for column, weight in columns_shown(batch, i, {"counters", "points", "negatives"} if in_batch else set()):
            if int(batch.text[column]) not in seen:
                seen.add(int(batch.text[column]))
                denominator = denominator + weight * log_odds(i, column).exp()
        total = total - (log_odds(i, i).exp() / denominator).log()
    return total / PAIRS


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.booleans(), st.integers(0, 999), st.booleans())
def test_pair_listwise_is_the_loop(in_batch: bool, seed: int, shared: bool) -> None:
    example, classifier = Example(seed, shared), random_classifier()
    loss = loss_of("pair_listwise", in_batch=in_batch)
    assert loss.points_are_candidates == in_batch
    found, expected = loss(example.batch, classifier)["total"], listwise_loop(example.batch, classifier, in_batch)
    parameters = list(classifier.parameters())
    both = [torch.autograd.grad(value, parameters, retain_graph=True) for value in (found, expected)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    compare(example, found, expected)


@pytest.mark.parametrize("name", ["pair_listwise", "pair_classifier"])
def test_detached_only_the_classifier_learns(name: str) -> None:
    example, classifier = Example(4), random_classifier()
    loss_of(name, detach_classifier=True)(example.batch, classifier)["total"].backward()
    assert example.as_query.grad is None
    assert example.pooled_query.grad is None
    assert classifier.linear.weight.grad is not None
    assert classifier.linear.weight.grad.abs().sum() > 0


# ---------------------------------------------------------------- sums


def without_points(batch: TextBatch) -> TextBatch:
    kept = torch.tensor([c for c in range(len(batch.text)) if not PAIRS <= c < 2 * PAIRS])
    return replace(
        batch,
        candidate=batch.candidate.rows(kept),
        allowed=batch.allowed[:, kept],
        text=batch.text[kept],
        negative=batch.negative - PAIRS,
    )


@pytest.mark.parametrize("name", ["triplet", "pair_classifier", "triplet_ce", "pair_listwise"])
def test_points_as_columns_change_no_other_term(name: str) -> None:
    example, classifier, loss = Example(6), random_classifier(), loss_of(name)
    with_points, without = (loss(b, classifier)["total"] for b in (example.batch, without_points(example.batch)))
    compare(example, with_points, without)


SUMS: dict[str, Callable[[], dict[str, Any]]] = {
    "listwise": lambda: {"name": "pair_listwise", "in_batch": False, "detach_classifier": True},
    "pointwise": lambda: {
        "name": "pair_classifier",
        "positive_weight": 1.0,
        "negative_weight": 1.0,
        "detach_classifier": True,
    },
}


@pytest.mark.parametrize("kind", SUMS)
def test_info_nce_and_a_classifier_loss_share_a_batch(kind: str) -> None:
    example, classifier = Example(7), random_classifier()
    terms, weights = {"retrieval": DEFAULTS, "classifier": SUMS[kind]()}, {"retrieval": 1.0, "classifier": 0.3}
    both = loss_of("weighted_sum", terms=terms, weights=weights)
    assert both.points_are_candidates
    assert both.options.trains_classifier()
    found = both(example.batch, classifier)
    parts = [loss_of(**values)(example.batch, classifier)["total"] for values in terms.values()]
    compare(example, found["total"], parts[0] + 0.3 * parts[1])
    alone = example.gradients(loss_of("info_nce")(example.batch, classifier)["total"])
    for one, other in zip(example.gradients(both(example.batch, classifier)["total"]), alone, strict=True):
        torch.testing.assert_close(one, other)  # detached: the encoder learns from info_nce only
