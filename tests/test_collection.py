"""Documents and several golds in sampling: against plain loops over small corpora."""

from __future__ import annotations

import numpy as np
import pytest
from collections_of import Judged, judged
from conftest import compose_train
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_sampling import BACKENDS

from negexp.components import build
from negexp.components.parse import parse_component
from negexp.corpus.arguments import Split
from negexp.randomness import generator
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, Negatives, SamplingRound
from negexp.tracking.ledger import build_ledger

some_examples = settings(deadline=None, derandomize=True, max_examples=30)
every_exclude = pytest.mark.parametrize("exclude", [["self"], ["self", "duplicates"]])
DUPLICATES = ["self", "duplicates"]


def is_forbidden(case: Judged, exclude: list[str], query: int, document: int) -> bool:
    """Return whether a document must not be a negative of a query."""
    golds = set(case.golds(query)) | {case.itself.get(query, -1)} - {-1}
    if "duplicates" not in exclude:
        return case.documents[document] in {case.documents[gold] for gold in golds}
    text = case.documents[document]
    for other, its_text in enumerate(case.queries):
        if case.same(its_text, case.queries[query]) and any(one == other for one, _ in case.grades):
            golds |= set(case.golds(other)) | {case.itself.get(other, -1)} - {-1}
    return case.same(text, case.queries[query]) or any(case.same(text, case.documents[gold]) for gold in golds)


def query_of_pair(case: Judged) -> list[int]:
    return [query for query, _ in sorted(case.grades)]


@every_exclude
@some_examples
@given(case=judged())
def test_golds_of_the_query_and_the_query_itself_are_forbidden(exclude: list[str], case: Judged) -> None:
    assume(case.grades)
    arguments = Arguments(case.split()[1])
    forbidden = Forbidden(arguments, exclude)
    documents = arguments.number("document", np.arange(len(case.documents)))
    contained = forbidden.contains(np.arange(arguments.pairs)[:, None], documents)
    expected = [
        [is_forbidden(case, exclude, query, document) for document in range(len(case.documents))]
        for query in query_of_pair(case)
    ]
    assert contained.tolist() == expected
    assert forbidden.count("document").tolist() == np.sum(expected, axis=1).tolist()
    points = forbidden.contains(np.arange(arguments.pairs)[:, None], np.arange(arguments.pairs))
    assert forbidden.count("point").tolist() == points.sum(axis=1).tolist()
    assert points.diagonal().all()


def round_of(case: Judged, split: Split, candidates: str, backend: str, k: int = 1) -> SamplingRound:
    """Return a round with vectors on a small grid, so that there are ties."""
    rng = np.random.default_rng(len(case.documents))
    arguments = Arguments(split)
    sizes = {"point": len(split), "counter": len(split), "document": len(case.documents)}
    tables = {name: rng.integers(-1, 2, (size, 2)).astype(np.float32) for name, size in sizes.items()}
    query = rng.integers(-1, 2, (len(split), 2)).astype(np.float32)
    space, forbidden = EmbeddingSpace(query, tables, BACKENDS[backend]), Forbidden(arguments, DUPLICATES)
    rng = generator(0, 0, "negatives")
    return SamplingRound(arguments, forbidden, space, rng, num_negatives=k, candidates=candidates)


@pytest.mark.parametrize("candidates", ["both", "points", "counters"])
@some_examples
@given(case=judged(), backend=st.sampled_from(["exact", "balltree"]), depth=st.integers(1, 9))
def test_neighbours_are_points_and_documents_in_order(candidates: str, case: Judged, backend: str, depth: int) -> None:
    assume(case.grades)
    split = case.split()[1]
    round_ = round_of(case, split, candidates, backend)
    found, space, n = round_.neighbours(np.arange(len(split)), depth), round_.space, len(split)
    for pair in range(n):
        near = [(row, space.candidate["point"][row]) for row in range(n) if row != pair and candidates != "counters"]
        if candidates != "points":
            near += [(2 * n + row, vector) for row, vector in enumerate(space.candidate["document"])]
        order = sorted((float(np.linalg.norm(vector - space.query[pair])), number) for number, vector in near)
        free = [not round_.forbidden.contains(np.array(pair), np.array(number)) for _, number in order]
        last = [place for place, one in enumerate(free) if one][:depth]
        wanted = order if len(last) < depth else order[: last[-1] + 1]
        known = found.rank[pair] > 0
        assert found.argument[pair][known].tolist() == [number for _, number in wanted]
        assert found.allowed[pair][known].tolist() == free[: len(wanted)]
        distance = found.distance[pair][known]
        np.testing.assert_allclose(distance, [distance for distance, _ in wanted], atol=1e-6)
        again = space.distance(np.array([pair]), found.argument[[pair]])[0][known]
        np.testing.assert_allclose(again, distance, atol=1e-6)


def test_by_default_queries_are_negatives_of_pairs_but_not_of_a_collection() -> None:
    case = Judged([0, 1, 2], [3, 4, 5, 6], {(0, 0): 1, (1, 1): 1, (2, 1): 1}, {}, list(range(8)))
    assert compose_train("data=beir", "data.path=folder").sampler.candidates == "auto"
    documents = round_of(case, case.split()[1], "auto", "exact")
    assert documents.tables == round_of(case, case.split()[1], "counters", "exact").tables == ("document",)
    pairs = Arguments(Split(("0", "1", "2"), np.arange(3), np.arange(3, 6), None, None, None))
    assert pairs.candidate_tables("auto") == pairs.candidate_tables("both") == ("point", "counter")


def test_draws_are_uniform_over_the_allowed_points_and_documents() -> None:
    case = Judged([0, 1, 2], [3, 4, 5, 6, 7], {(0, 0): 1, (0, 1): 2, (1, 2): 1, (2, 0): 1}, {}, list(range(8)))
    round_ = round_of(case, case.split()[1], "both", "exact")
    drawn = np.concatenate([round_.draw(np.array([0])).argument[:, 0] for _ in range(1500)])
    # pairs 0 and 1 are query 0: its point is there twice, and of the documents 2, 3 and 4 are allowed
    values, count = np.unique(drawn, return_counts=True)
    assert values.tolist() == [2, 3, 8 + 2, 8 + 3, 8 + 4]
    assert np.abs(count / 1500 - 1 / 5).max() < 0.05


def test_the_ledger_says_whether_a_document_is_a_counter() -> None:
    case = Judged([0, 1, 2], [3, 4, 5, 6], {(0, 0): 1, (1, 1): 1, (2, 1): 1}, {}, list(range(8)))
    arguments = Arguments(case.split()[1])
    negatives = Negatives(arguments.number("document", np.array([[1, 3], [0, 2], [0, 3]])), np.array([[1, 2]] * 3))
    ledger = build_ledger(arguments, negatives, np.zeros(3), 0)
    assert ledger["source"].tolist() == ["counter", "document", "counter", "document", "counter", "document"]
    assert ledger["row"].tolist() == [1, 3, 0, 2, 0, 3]  # counters: the first pair that has them


def test_a_scope_counts_candidates_only() -> None:
    """With documents, counters stand between points and documents, and are no candidates."""
    case = Judged([0, 1, 2], [3, 4, 5, 6], {(0, 0): 1, (1, 1): 1, (2, 2): 1}, {}, list(range(7)))
    round_ = round_of(case, case.split()[1], "both", "exact", k=4)
    bound = {"name": "score", "low": None, "high": -1.0, "margin": None}
    every = {"name": "scope", "origin": ["debate", "theme", "elsewhere"], "role": "any", "stance": "any"}
    wide, counters = (
        build("mining", parse_component("mining", {**every, "role": role, "policy": bound}, "sampler.mining"))
        for role in ("any", "counter")
    )
    # two other points and three other documents; of these, two are counters
    assert wide.why_fewer(round_, np.arange(3)) == ["outside of the bounds of the similarity"] * 3
    round_ = round_.wanting(3)
    assert counters.why_fewer(round_, np.arange(3)) == ["outside of the scope"] * 3
