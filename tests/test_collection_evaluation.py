"""Ranks over a collection, with several golds and grades: against plain loops, and against ir_measures."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pandas as pd
import pytest
from collections_of import Judged, judged
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG
from test_evaluation import LARGE, config

from negexp.corpus.arguments import Split
from negexp.evaluation import Combination, MatrixScorer, StageScorers, rank_queries, summarise
from negexp.evaluation.trec import TrecExport

Key = tuple[str, int]  # kind and row of a candidate: a document, or the point of a query


def same(case: Judged, one: int, other: int) -> bool:
    return case.same(one, other)


def text_of(case: Judged, key: Key) -> int:
    return case.documents[key[1]] if key[0] == "document" else case.queries[key[1]]


def pool_of(case: Judged, task: str, protocol: str, query: int) -> list[Key]:
    """Return documents in order, then the points of all queries with a gold; in `clean` the first of all copies."""
    keys = [("document", row) for row in range(len(case.documents))]
    keys += [("point", other) for other in sorted({one for one, _ in case.grades})] if task == "epa" else []
    if protocol == "published":
        own = {("point", query), ("document", case.itself.get(query, -1))}
        return [key for key in keys if key not in own]
    gone = [case.queries[query]] + ([case.documents[case.itself[query]]] if query in case.itself else [])
    kept: list[Key] = []
    for key in keys:
        text = text_of(case, key)
        if not any(same(case, text, other) for other in [*gone, *(text_of(case, one) for one in kept)]):
            kept.append(key)
    return kept


def golds_of(case: Judged, pool: list[Key], query: int) -> list[tuple[int, list[Key]]]:
    """Return the grade of each gold in the pool, with all of its copies; golds that are copies are one."""
    found: dict[int, tuple[int, list[Key]]] = {}
    for document, grade in case.golds(query).items():
        text = case.documents[document]
        copies = [key for key in pool if same(case, text_of(case, key), text)]
        if copies:
            known = found.get(case.copies[text], (0, []))
            found[case.copies[text]] = max(known[0], grade), copies
    return list(found.values())


def ranking(golds: list[tuple[int, list[Key]]], pool: list[Key], score: dict[Key, float]) -> list[int]:
    """Return grades, best first: each gold once, below other candidates with its score; golds in their order."""
    gold_keys = [key for _, copies in golds for key in copies]
    entries = [(-score[key], 0, place, 0) for place, key in enumerate(pool) if key not in gold_keys]
    entries += [(-max(map(score.__getitem__, copies)), 1, pool.index(copies[0]), grade) for grade, copies in golds]
    return [grade for *_, grade in sorted(entries)]


def reranked(
    golds: list[tuple[int, list[Key]]], pool: list[Key], score: dict[Key, float], second: dict[Key, float], k: int
) -> list[int]:
    """Return grades in the order of two stages: the k nearest by the second score, then the others by the first."""
    best = {one: max(score[copy] for copy in copies) for _, copies in golds for one in copies}
    near = sorted(pool, key=lambda one: (-best.get(one, score[one]), one in best, pool.index(one)))[:k]
    inside = [(grade, [one for one in near if one in copies]) for grade, copies in golds]
    outside = [gold for gold, (_, listed) in zip(golds, inside, strict=True) if not listed]
    listed = near + [copy for (_, copies), (_, own) in zip(golds, inside, strict=True) if own for copy in copies]
    first = ranking([gold for gold in inside if gold[1]], near, second)
    return first + ranking(outside, [one for one in pool if one not in listed], score)


def metrics_of(order: list[int], grades: list[int]) -> tuple[int, float]:
    """Return the rank of the best gold, and nDCG@10."""
    ideal = sum(grade / math.log2(2 + place) for place, grade in enumerate(sorted(grades, reverse=True)[:10]))
    gain = sum(grade / math.log2(2 + place) for place, grade in enumerate(order[:10]))
    return 1 + next(place for place, grade in enumerate(order) if grade), gain / ideal


def reference(
    case: Judged, scores: np.ndarray, combined: np.ndarray, k: int
) -> dict[tuple[str, ...], tuple[int, float]]:
    result: dict[tuple[str, ...], tuple[int, float]] = {}
    for protocol in ("published", "clean"):
        for task in ("epc", "epa"):
            known: list[object] = []
            for query in sorted({one for one, _ in case.grades}):
                pool, text = pool_of(case, task, protocol, query), case.queries[query]
                golds = golds_of(case, pool, query)
                key = case.copies[text], {case.copies[text_of(case, copies[0])] for _, copies in golds}
                if not golds or (protocol == "clean" and key in known):
                    continue
                known.append(key)
                score = {one: scores[text, text_of(case, one)] for one in pool}
                second = {one: combined[text, text_of(case, one)] for one in pool}
                grades = [grade for grade, _ in golds]
                result[f"q{query}", protocol, "retrieval", task] = metrics_of(ranking(golds, pool, score), grades)
                order = reranked(golds, pool, score, second, k)
                result[f"q{query}", protocol, "reranked", task] = metrics_of(order, grades)
    return result


def scorers(
    case: Judged, split: Split, texts: tuple[str, ...], scores: np.ndarray, classifier: np.ndarray
) -> StageScorers:
    number = np.array([next(n for n in range(len(case.copies)) if case.text(n) == text) for text in texts])
    return StageScorers(
        MatrixScorer(lambda query, candidate: scores[np.ix_(number[query], number[candidate])]),
        lambda query, candidates: classifier[number[query][:, None], number[candidates]],
    )


def as_table(ranks: pd.DataFrame) -> dict[tuple[str, ...], tuple[int, float]]:
    columns = ["query", "protocol", "stage", "task", "rank", "ndcg@10"]
    rows = ranks[columns].itertuples(index=False, name=None)
    return {(query, protocol, stage, task): (rank, ndcg) for query, protocol, stage, task, rank, ndcg in rows}


PHASES = (Phase.explicit, Phase.generate)  # shrinking would take minutes
matrices = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).integers(-2, 3, (6, 6)).astype(float))


@settings(deadline=None, derandomize=True, max_examples=40, phases=PHASES)
@given(case=judged(), scores=matrices, classifier=matrices, k=st.integers(1, 20), block=st.sampled_from([1, LARGE]))
def test_ranks_and_ndcg_equal_plain_loops(
    case: Judged, scores: np.ndarray, classifier: np.ndarray, k: int, block: int
) -> None:
    assume(case.grades)
    texts, split = case.split()
    expected = reference(case, scores, classifier, k)
    assume({"published", "clean"} <= {key[1] for key in expected})
    found = as_table(rank_queries(split, scorers(case, split, texts, scores, classifier), k, block))
    assert found.keys() == expected.keys()
    for key, (rank, ndcg) in expected.items():
        assert found[key][0] == rank, key
        assert found[key][1] == pytest.approx(ndcg, abs=1e-12), key


MEASURES = {"accuracy@1": Success @ 1, "accuracy@5": Success @ 5, "mrr": RR, "ndcg@10": nDCG @ 10}


@settings(deadline=None, derandomize=True, max_examples=10, phases=PHASES)
@given(case=judged(), scores=matrices, weight=st.sampled_from([0.0, 0.5, 1.0]), k=st.integers(1, 6))
def test_ir_measures_computes_the_same_metrics_from_the_trec_files(
    case: Judged, scores: np.ndarray, weight: float, k: int
) -> None:
    assume(case.grades)
    texts, split = case.split()
    both = scorers(case, split, texts, scores, scores.T)._replace(combination=Combination(weight))
    expected = summarise(rank_queries(split, both, k, LARGE))
    assume(len(expected) == 2)
    files = {name: content.decode() for name, content in TrecExport(split, both, config(k), None).files("test")}
    for protocol, stages in expected.items():
        for stage, tasks in stages.items():
            for task, values in tasks.items():
                relevant = list(ir_measures.read_trec_qrels(files[f"test-{protocol}-{task}.qrels"]))
                run = ir_measures.read_trec_run(files[f"test-{protocol}-{stage}-{task}.run"])
                found = ir_measures.calc_aggregate(list(MEASURES.values()), relevant, run)
                assert len({one.query_id for one in relevant}) == values["queries"]
                for name, measure in MEASURES.items():
                    assert found[measure] == pytest.approx(values[name], abs=1e-9), (protocol, stage, task, name)


def test_trec_files_have_the_ids_of_the_documents_and_the_grades() -> None:
    case = Judged([0, 1], [2, 3, 4], {(0, 1): 2, (0, 2): 1, (1, 0): 1}, {}, list(range(5)))
    texts, split = case.split()
    scores = np.arange(25.0).reshape(5, 5)
    export = TrecExport(
        split, StageScorers(scorers(case, split, texts, scores, scores).retrieval, None), config(3), None
    )
    files = {name: content.decode().splitlines() for name, content in export.files("test")}
    assert files["test-published-epc.qrels"] == ["q0 0 d2 1", "q0 0 d1 2", "q1 0 d0 1"]
    run = [line.split()[:4] for line in files["test-published-retrieval-epa.run"]]
    assert run[:4] == [["q0", "Q0", name, str(rank)] for rank, name in enumerate(["d2", "d1", "d0", "q1/point"], 1)]
