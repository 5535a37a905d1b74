"""Compare ranks with a slow reference that loops over queries and candidates, as the contract describes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from negexp.config import EvaluationConfig, ModelConfig
from negexp.corpus.arguments import Split
from negexp.embedding import Embeddings
from negexp.evaluation import MatrixScorer, StageScorers, rank_queries
from negexp.evaluation.evaluator import evaluate_split, sample_queries, split_scorers
from negexp.evaluation.metrics import RANK_COLUMNS, Metrics
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.names import argument_ids
from negexp.evaluation.report_text import metrics_text, skipped_tasks_text
from negexp.model import BiEncoder, Vectors
from negexp.model.bi_encoder import PairClassifier

NEEDS = {
    "sdoc": {"debate", "stance"},
    "sdc": {"debate"},
    "sdoa": {"debate", "stance"},
    "sda": {"debate"},
    "stc": {"theme"},
    "sta": {"theme"},
    "epc": set(),
    "epa": set(),
}
LARGE = 1 << 20

PairScore = Callable[[int, int], float]  # text of the query, text of the candidate
Table = dict[tuple[str, str, str, str], tuple[int, int]]  # query, protocol, stage, task -> rank, candidates


# ---- the reference ---------------------------------------------------------------------------------------------------


def is_candidate(split: Split, task: str, query: int, kind: str, row: int) -> bool:
    if kind == "point" and row == query:
        return False  # the query itself

    def same(name: str) -> bool:
        codes = getattr(split, name)
        return bool(codes[row] == codes[query])

    if task == "sdoc":
        return kind == "counter" and same("debate") and same("stance")
    if task == "sdc":
        return kind == "counter" and same("debate")
    if task == "sdoa":
        return same("debate") and (same("stance") if kind == "counter" else not same("stance"))
    if task == "sda":
        return same("debate")
    if task == "stc":
        return kind == "counter" and same("theme")
    if task == "sta":
        return same("theme")
    return kind == "counter" or task == "epa"


def same(split: Split, text: int, other: int) -> bool:
    """Return whether two texts are copies of each other."""
    return text == other if split.identity is None else bool(split.identity[text] == split.identity[other])


def reference_pool(split: Split, task: str, protocol: str, query: int) -> list[int]:
    """Return the candidates' texts: counters by row, then points by row; in `clean` the first of all copies."""
    rows = range(len(split))
    pool = [int(split.counter[row]) for row in rows if is_candidate(split, task, query, "counter", row)]
    pool += [int(split.point[row]) for row in rows if is_candidate(split, task, query, "point", row)]
    if protocol == "clean":
        distinct: list[int] = []
        for text in pool:
            if not any(same(split, text, other) for other in [*distinct, int(split.point[query])]):
                distinct.append(text)
        return distinct
    return pool


def reference_queries(split: Split, protocol: str) -> list[int]:
    pairs = [(int(point), int(counter)) for point, counter in zip(split.point, split.counter, strict=True)]
    if protocol == "published":
        return list(range(len(pairs)))

    def repeats(row: int, earlier: int) -> bool:
        return all(same(split, *texts) for texts in zip(pairs[row], pairs[earlier], strict=True))

    first = [row for row in range(len(pairs)) if not any(repeats(row, earlier) for earlier in range(row))]
    return [row for row in first if not same(split, *pairs[row])]  # otherwise the gold is no candidate


def reference_ranks(split: Split, score: PairScore, classify: PairScore, k: int) -> Table:
    table: Table = {}
    for protocol in ("published", "clean"):
        for task, needs in NEEDS.items():
            if any(getattr(split, name) is None for name in needs):
                continue
            for query in reference_queries(split, protocol):
                text, gold = int(split.point[query]), int(split.counter[query])
                pool = reference_pool(split, task, protocol, query)

                golds = [other for other in pool if same(split, other, gold)]  # the gold and its copies count as one

                def best(texts: list[int], by: PairScore, text: int = text, golds: list[int] = golds) -> float:
                    return max(by(text, other) for other in texts if other in golds)

                def rank_among(texts: list[int], by: PairScore, text: int = text, golds: list[int] = golds) -> int:
                    return 1 + sum(by(text, other) >= best(texts, by) for other in texts if other not in golds)

                rank, highest = rank_among(pool, score), best(pool, score)
                places = [(-highest, True) if other in golds else (-score(text, other), False) for other in pool]
                nearest = [pool[place] for place in sorted(range(len(pool)), key=places.__getitem__)[:k]]
                reranked = rank_among(nearest, classify) if set(nearest) & set(golds) else rank
                table[split.ids[query], protocol, "retrieval", task] = rank, len(pool)
                table[split.ids[query], protocol, "reranked", task] = reranked, len(pool)
    return table


# ---- small corpora, and the implementation's answer in the reference's shape -----------------------------------------


@dataclass(frozen=True)
class Case:
    """A split and integer scores (texts, texts) of both stages."""

    split: Split
    scores: np.ndarray
    classifier_scores: np.ndarray


@st.composite
def cases(draw: st.DrawFn, without_metadata: bool = False, respelled: bool = False) -> Case:
    """Draw a small corpus. `respelled`: some texts are copies of others with another spelling."""
    texts = draw(st.integers(2, 7))
    pairs = draw(st.lists(st.tuples(st.integers(0, texts - 1), st.integers(1, texts - 1)), min_size=1, max_size=8))
    size = len(pairs)

    def codes(number: int, highest: int) -> np.ndarray:
        return np.array(draw(st.lists(st.integers(0, highest), min_size=number, max_size=number)), dtype=np.int64)

    point = np.array([first for first, _ in pairs], dtype=np.int64)
    counter = np.array([(first + offset) % texts for first, offset in pairs], dtype=np.int64)
    debate = codes(size, 2)
    names = ("theme", "debate", "stance")
    metadata: dict[str, np.ndarray | None] = dict(zip(names, (debate // 2, debate, codes(size, 1)), strict=True))
    if without_metadata:
        metadata |= dict.fromkeys(draw(st.sets(st.sampled_from(names), min_size=1)))
    identity = codes(texts, texts - 2) if respelled else None
    theme, debate_of, stance = (metadata[name] for name in names)
    split = Split(tuple(f"q{row}" for row in range(size)), point, counter, theme, debate_of, stance, identity=identity)
    matrix = arrays(np.float64, (texts, texts), elements=st.integers(-2, 2).map(float))
    return Case(split, draw(matrix), draw(matrix))


def scorers_of(case: Case) -> StageScorers:
    return StageScorers(
        MatrixScorer(lambda query, candidate: case.scores[np.ix_(query, candidate)]),
        lambda query, candidates: case.classifier_scores[query[:, None], candidates],
    )


def lookup(scores: np.ndarray) -> PairScore:
    return lambda query, candidate: float(scores[query, candidate])


def rank_case(
    case: Case, k: int = 3, block_bytes: int = LARGE, queries: np.ndarray | None = None
) -> tuple[pd.DataFrame, Table]:
    ranks = rank_queries(case.split, scorers_of(case), k, block_bytes, queries)
    return ranks, as_table(ranks)


def as_table(ranks: pd.DataFrame) -> Table:
    keys = ranks[["query", "protocol", "stage", "task"]].itertuples(index=False, name=None)
    table = dict(zip(keys, zip(ranks["rank"].tolist(), ranks["candidates"].tolist(), strict=True), strict=True))
    assert len(table) == len(ranks), "a query was ranked twice"
    return cast(Table, table)


# ---- ranking ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    case=st.one_of(cases(), cases(respelled=True)), k=st.integers(1, 6), block_bytes=st.sampled_from([1, 100, LARGE])
)
def test_ranks_equal_the_reference(case: Case, k: int, block_bytes: int) -> None:
    expected = reference_ranks(case.split, lookup(case.scores), lookup(case.classifier_scores), k)
    assert rank_case(case, k, block_bytes)[1] == expected


@settings(deadline=None, derandomize=True, max_examples=10)
@given(case=cases(without_metadata=True))
def test_tasks_without_their_metadata_are_skipped_and_named(case: Case) -> None:
    ranks, table = rank_case(case)
    assert table == reference_ranks(case.split, lookup(case.scores), lookup(case.classifier_scores), 3)
    sentence = skipped_tasks_text(case.split)
    assert sentence is not None
    absent, _, tasks = sentence.removeprefix("tasks skipped because the data has no ").partition(": ")
    missing = {name for name in ("theme", "debate", "stance") if getattr(case.split, name) is None}
    assert set(absent.split(", ")) == missing
    assert tasks.split(", ") == [task for task, needs in NEEDS.items() if needs & missing]
    assert set(tasks.split(", ")) == set(NEEDS) - set(ranks["task"])


@settings(deadline=None, derandomize=True, max_examples=15)
@given(case=cases(), k=st.integers(1, 6))
def test_the_first_candidate_is_gold_only_at_rank_1_and_has_the_best_score(case: Case, k: int) -> None:
    text_of = {id_: text for text, id_ in argument_ids(case.split).items()}
    by_stage = {"retrieval": lookup(case.scores), "reranked": lookup(case.classifier_scores)}
    for row, protocol, stage, task, rank, first in rank_case(case, k)[0][
        ["row", "protocol", "stage", "task", "rank", "first"]
    ].itertuples(index=False):
        query, gold = int(case.split.point[row]), int(case.split.counter[row])
        pool, best = reference_pool(case.split, task, protocol, row), text_of[first]
        if stage == "reranked":
            score = by_stage["retrieval"]
            order = {other: (-score(query, other), other == gold) for other in pool}
            pool = sorted(pool, key=order.__getitem__)[:k]
        assert (best == gold) == (rank == 1)
        assert best in pool
        assert by_stage[stage](query, best) == max(by_stage[stage](query, other) for other in pool)


def test_a_text_gets_the_id_of_its_first_argument_counters_before_points() -> None:
    assert argument_ids(one_debate(point=[0, 2, 5], counter=[1, 1, 0])) == {
        0: "q2/counter",
        1: "q0/counter",
        2: "q1/point",
        5: "q2/point",
    }


@settings(deadline=None, derandomize=True, max_examples=10)
@given(case=cases(), k=st.integers(1, 6))
def test_a_constant_scorer_puts_every_other_text_above_the_gold(case: Case, k: int) -> None:
    constant = replace(
        case, scores=np.full_like(case.scores, 0.5), classifier_scores=np.full_like(case.classifier_scores, 0.5)
    )
    row = {id_: row for row, id_ in enumerate(case.split.ids)}
    for (query, protocol, stage, task), (rank, _) in rank_case(constant, k)[1].items():
        pool = reference_pool(case.split, task, protocol, row[query])
        assert rank == 1 + sum(text != case.split.counter[row[query]] for text in pool), (query, protocol, stage, task)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(case=cases(), k=st.integers(1, 6))
def test_a_scorer_that_knows_the_gold_ranks_it_first(case: Case, k: int) -> None:
    perfect = np.zeros_like(case.scores)
    perfect[case.split.point, case.split.counter] = 1
    golds = pd.Series(case.split.counter).groupby(case.split.point).nunique()
    ranks = rank_case(replace(case, scores=perfect, classifier_scores=perfect), k)[0]
    one_gold = golds[case.split.point[ranks["row"].to_numpy()]].to_numpy() == 1  # else a point's golds are equal
    assert (ranks["rank"][one_gold] == 1).all()


@settings(deadline=None, derandomize=True, max_examples=10)
@given(case=cases(), k=st.integers(1, 6), block_bytes=st.integers(1, 300))
def test_the_block_size_changes_no_rank(case: Case, k: int, block_bytes: int) -> None:
    pd.testing.assert_frame_equal(rank_case(case, k, block_bytes)[0], rank_case(case, k)[0])


@settings(deadline=None, derandomize=True, max_examples=10)
@given(case=cases(), data=st.data())
def test_a_subset_of_queries_has_the_ranks_of_the_full_run(case: Case, data: st.DataObject) -> None:
    rows = data.draw(st.sets(st.sampled_from(range(len(case.split))), min_size=1))
    full, queries = rank_case(case)[0], np.array(sorted(rows))
    expected = full[full["row"].isin(rows)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rank_case(case, queries=queries)[0], expected)


def one_debate(point: list[int], counter: list[int]) -> Split:
    codes = np.zeros(len(point), dtype=np.int64)
    ids = tuple(f"q{row}" for row in range(len(point)))
    return Split(ids, np.array(point), np.array(counter), codes, codes, codes)


def test_copies_of_the_gold_are_gold_in_published_and_one_candidate_in_clean() -> None:
    split = one_debate(point=[0, 0, 3], counter=[1, 1, 2])  # q1 is a copy of q0
    scores = np.zeros((4, 4))
    scores[0, [1, 2]] = 2, 1
    table = rank_case(Case(split, scores, scores))[1]
    assert [table[query, "published", "retrieval", "sdc"] for query in ("q0", "q1")] == [(1, 3), (1, 3)]
    assert table["q0", "clean", "retrieval", "sdc"] == (1, 2)
    assert ("q1", "clean", "retrieval", "sdc") not in table


def test_copies_with_another_spelling_are_scored_by_their_own_texts() -> None:
    # texts 1 and 4 are two spellings of the gold; text 5 is another spelling of the query
    split = replace(one_debate(point=[0, 5, 3], counter=[1, 2, 4]), identity=np.array([0, 1, 2, 3, 1, 0]))
    scores = np.zeros((6, 6))
    scores[0] = [0, 1, 2, 0, 3, 9]
    table = rank_case(Case(split, scores, scores))[1]
    assert table["q0", "published", "retrieval", "sdc"] == (1, 3)  # the rank of text 4, which is nearer than text 2
    assert table["q0", "published", "retrieval", "epa"] == (2, 5)  # text 5 competes
    assert table["q0", "clean", "retrieval", "epa"] == (2, 3)  # text 5 is removed, text 4 is merged into text 1


def test_respelled_pairs_are_one_query_in_clean() -> None:
    split = replace(one_debate(point=[0, 1, 0], counter=[2, 3, 4]), identity=np.array([0, 0, 1, 1, 2]))
    table = rank_case(Case(split, np.zeros((5, 5)), np.zeros((5, 5))))[1]
    assert {query for query, protocol, *_ in table if protocol == "clean"} == {"q0", "q2"}


def test_a_copy_of_the_query_competes_in_published_only() -> None:
    split = one_debate(point=[0, 0], counter=[1, 2])
    scores = np.zeros((3, 3))
    scores[0] = [9, 5, 1]  # its own text is the nearest
    table = rank_case(Case(split, scores, scores))[1]
    assert table["q0", "published", "retrieval", "epa"] == (2, 3)
    assert table["q0", "clean", "retrieval", "epa"] == (1, 2)


def test_beyond_the_k_nearest_the_classifier_changes_nothing() -> None:
    split = one_debate(point=[0, 0, 0], counter=[1, 2, 3])
    scores, classifier_scores = np.zeros((4, 4)), np.zeros((4, 4))
    scores[0], classifier_scores[0] = [0, 3, 2, 1], [0, 1, 2, 3]  # opposite orders

    def reranked(k: int) -> list[int]:
        table = rank_case(Case(split, scores, classifier_scores), k)[1]
        return [table[query, "published", "reranked", "sdc"][0] for query in ("q0", "q1", "q2")]

    assert reranked(1) == [1, 2, 3]
    assert reranked(2) == [2, 1, 3]
    assert reranked(3) == [3, 2, 1]


def test_in_clean_the_first_copy_decides_which_candidates_are_among_the_k_nearest() -> None:
    split = one_debate(point=[0, 4, 5, 6], counter=[1, 2, 3, 2])
    scores, classifier_scores = np.zeros((7, 7)), np.zeros((7, 7))
    scores[0, 1], classifier_scores[0, 2] = (
        1,
        1,
    )  # 2 and 3 are equally far and 2 is first; the classifier prefers 2 to the gold
    classifier_scores[0, 3] = -1
    assert rank_case(Case(split, scores, classifier_scores), k=2)[1]["q0", "clean", "reranked", "sdc"] == (2, 3)


def test_without_a_classifier_there_is_only_retrieval() -> None:
    case = Case(one_debate([0, 2], [1, 3]), np.eye(4), np.eye(4))
    ranks = rank_queries(case.split, scorers_of(case)._replace(classify=None), 10, LARGE)
    assert set(ranks["stage"]) == {"retrieval"}


# ---- evaluator -------------------------------------------------------------------------------------------------------

TEXTS, ABSENT = 24, 4  # the last texts of the corpus are not embedded


@dataclass(frozen=True)
class Setup:
    model: BiEncoder
    embeddings: Embeddings
    split: Split

    def evaluate(self, config: EvaluationConfig, train: Split | None = None, **more: Any) -> pd.DataFrame:
        scorers = split_scorers(self.model, self.embeddings)
        return evaluate_split(scorers, self.split, train or self.split, config, **more)


def config(rerank_k: int = 4, block_bytes: int = LARGE) -> EvaluationConfig:
    return EvaluationConfig(rerank_k=rerank_k, rerank_weight=None, train_queries=5, block_bytes=block_bytes)


@pytest.fixture
def setup() -> Setup:
    """Random vectors of unshared encoders in a random order, and a random pair classifier."""
    torch_generator, rng = torch.Generator().manual_seed(7), np.random.default_rng(7)

    def vectors() -> Vectors:
        return Vectors(*(torch.randn(TEXTS, size, generator=torch_generator) for size in (3, 5)))

    features = SimpleNamespace(classifier_features="concat", layer_norm=False, activation="none")
    pair_classifier = PairClassifier(3, 5, cast(ModelConfig, features))
    for parameter in pair_classifier.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_generator)
    row = np.concatenate([rng.permutation(TEXTS), np.full(ABSENT, -1)])
    point, counter = rng.integers(0, TEXTS // 2, 12), rng.integers(TEXTS // 2, TEXTS, 12)
    point[-1], counter[-1] = point[0], counter[0]  # a cross-listed pair
    debate = np.sort(rng.integers(0, 4, 12))
    split = Split(tuple(f"q{i}" for i in range(12)), point, counter, debate // 2, debate, rng.integers(0, 2, 12))
    return Setup(BiEncoder([], pair_classifier), Embeddings(vectors(), vectors(), row), split)


def pair_distance(setup: Setup, query: int, candidate: int) -> float:
    q = setup.embeddings.query.retrieval[setup.embeddings.row[query]].double()
    c = setup.embeddings.candidate.retrieval[setup.embeddings.row[candidate]].double()
    return float(torch.dist(q, c))


def pair_classifier_score(setup: Setup, query: int, candidate: int) -> float:
    """Return the log-odds of a counter, from one call of the classifier for one pair."""
    q, c = setup.embeddings.row[query], setup.embeddings.row[candidate]
    as_query, as_candidate = setup.embeddings.query, setup.embeddings.candidate
    assert setup.model.classifier is not None
    with torch.no_grad():
        logits = setup.model.classifier(
            as_query.retrieval[q], as_query.pooled[q], as_candidate.retrieval[c], as_candidate.pooled[c]
        )
    probability = torch.softmax(logits.double(), dim=-1)[1]
    return float(torch.logit(probability))


@pytest.mark.parametrize("block_bytes", [1, 500, LARGE])
def test_evaluate_split_equals_the_reference_with_one_classifier_call_per_pair(setup: Setup, block_bytes: int) -> None:
    ranks = setup.evaluate(config(block_bytes=block_bytes))
    expected = reference_ranks(
        setup.split, lambda q, c: -pair_distance(setup, q, c), lambda q, c: pair_classifier_score(setup, q, c), 4
    )
    assert list(ranks.columns) == RANK_COLUMNS
    assert as_table(ranks) == expected
    assert any(expected[key] != expected[(*key[:2], "retrieval", key[3])] for key in expected), (
        "re-ranking changes no rank"
    )


def test_the_scores_are_distances_and_the_classifier_scores_those_of_single_pairs(setup: Setup) -> None:
    score, classify, _ = split_scorers(setup.model, setup.embeddings)
    assert classify is not None
    queries, candidates = setup.split.point[:3], setup.split.counter[:4]
    distances = [[-(pair_distance(setup, q, c) ** 2) for c in candidates] for q in queries]
    tiles = score.tiles(queries)
    found = tiles.scores(candidates).double() - tiles.rescaled(np.array(distances))
    assert (found.abs() <= tiles.error[:, None]).all()
    pairs = [score.pairs(np.repeat(query, 4), candidates) for query in queries]
    np.testing.assert_allclose(pairs, distances, rtol=1e-9)
    classifier_scores = [[pair_classifier_score(setup, q, c) for c in candidates] for q in queries]
    np.testing.assert_allclose(classify(queries, np.tile(candidates, (3, 1))), classifier_scores, rtol=1e-4, atol=1e-4)


def test_another_text_with_the_golds_embedding_stands_above_the_gold(setup: Setup) -> None:
    first, last = TEXTS // 2, TEXTS - 1
    setup.split.counter[:] = np.resize(
        [first, last], len(setup.split)
    )  # every large pool has a text with the gold's embedding
    for vectors in (setup.embeddings.candidate.retrieval, setup.embeddings.candidate.pooled):
        vectors[setup.embeddings.row[last]] = vectors[setup.embeddings.row[first]]
    for block_bytes in (1, 500, LARGE):
        ranks = setup.evaluate(config(rerank_k=TEXTS, block_bytes=block_bytes))
        assert (ranks["rank"][ranks["task"].isin(["epc", "epa"])] > 1).all()


def test_an_untrained_encoder_without_heads_has_no_reranked_stage(setup: Setup) -> None:
    ranks = replace(setup, model=BiEncoder([], None)).evaluate(config())
    expected = setup.evaluate(config())
    expected = expected[expected["stage"] == "retrieval"].reset_index(drop=True)
    pd.testing.assert_frame_equal(ranks, expected)


def test_evaluate_split_ranks_the_given_queries_only(setup: Setup) -> None:
    full = setup.evaluate(config())
    expected = full[full["query"].isin(["q2", "q5"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(setup.evaluate(config(), queries=np.array([2, 5])), expected)


def test_seen_in_training_marks_queries_with_a_text_of_the_training_pairs(setup: Setup) -> None:
    other = TEXTS  # in no pair of the split
    train = one_debate(point=[int(setup.split.point[3]), other], counter=[other, int(setup.split.counter[7])])
    seen = setup.evaluate(config(), train).groupby("query")["seen_in_training"].agg(set)
    for row, id_ in enumerate(setup.split.ids):
        pair = {int(setup.split.point[row]), int(setup.split.counter[row])}
        assert seen[id_] == {bool(pair & {int(setup.split.point[3]), int(setup.split.counter[7])})}, id_
    assert {True, False} <= set().union(*seen)


def test_a_training_text_in_another_spelling_is_seen(setup: Setup) -> None:
    identity = np.arange(TEXTS + 2)
    identity[TEXTS] = setup.split.counter[7]  # the training text is a copy of it
    train = replace(one_debate(point=[TEXTS], counter=[TEXTS + 1]), identity=identity)
    ranks = replace(setup, split=replace(setup.split, identity=identity)).evaluate(config(), train)
    seen = set(ranks["query"][ranks["seen_in_training"]])
    assert seen == {f"q{row}" for row in range(12) if setup.split.counter[row] == setup.split.counter[7]}


def test_sample_queries_depends_on_the_seed_only_and_takes_distinct_pairs() -> None:
    pairs = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 2
    split = one_debate(point=pairs, counter=[10 + text for text in pairs])
    sample = sample_queries(split, 4, seed=3)
    assert sample.tolist() == sample_queries(split, 4, seed=3).tolist()
    assert sample.tolist() == sorted(set(sample.tolist()))
    assert len(sample) == 4
    assert sample.max() < 10  # first occurrences
    assert len({tuple(sample_queries(split, 4, seed)) for seed in range(6)}) > 1
    assert sample_queries(split, 100, seed=3).tolist() == list(range(10))


# ---- the text for the terminal -------------------------------------------------------------------------------------


def of_tasks(**stages: dict[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """Return accuracy@1 by stage and task, with fixed values for the other columns."""
    return {
        stage: {
            task: {"candidates": 5.0, "accuracy@10": 1.0, "mrr": 1 - value, "accuracy@1": value}
            for task, value in tasks.items()
        }
        for stage, tasks in stages.items()
    }


def test_protocols_with_the_same_numbers_are_shown_once() -> None:
    one, other = of_tasks(retrieval={"sdc": 0.5, "epa": 0.25}), of_tasks(retrieval={"sdc": 0.5, "epa": 0.2})
    lines = metrics_text({"published": one, "clean": one}).splitlines()
    assert [line.split() for line in lines] == [
        ["published", "and", "clean,", "retrieval"],
        ["task", "candidates", "acc@1", "acc@10"],
        ["sdc", "5.0", "0.5000", "1.0000"],
        ["epa", "5.0", "0.2500", "1.0000"],
        [],
        ["published", "and", "clean", "give", "the", "same", "numbers", "here,", "so", "they", "are", "shown", "once."],
    ]
    lines = metrics_text({"published": one, "clean": other}).splitlines()
    assert [line.split() for line in lines] == [
        ["published,", "retrieval", "clean,", "retrieval"],
        ["task", "candidates", "acc@1", "acc@10", "acc@1", "acc@10"],
        ["sdc", "5.0", "0.5000", "1.0000", "0.5000", "1.0000"],
        ["epa", "5.0", "0.2500", "1.0000", "0.2000", "1.0000"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_a_note_says_when_reranking_is_below_retrieval_in_the_monitored_task() -> None:
    below = of_tasks(retrieval={"sdc": 0.5, "epa": 0.25}, reranked={"sdc": 0.25, "epa": 0.25})
    metrics: Metrics = {"published": of_tasks(retrieval={"sdc": 0.1}, reranked={"sdc": 0.1}), "clean": below}
    note = " ".join(metrics_text(metrics, Monitor.parse("clean/reranked/sdc/accuracy@1")).split())
    assert "Re-ranked is below retrieval in clean sdc (accuracy@1 0.2500 against 0.5000): " in note
    assert "Read the retrieval columns" in note
    quiet = [
        "clean/retrieval/epa/accuracy@1",  # equal
        "clean/reranked/sdc/mrr",  # above, in this metric
        "published/reranked/sdc/accuracy@1",
        "clean/reranked/sta/accuracy@1",  # a task that this corpus does not have
        None,
    ]
    monitors = [None if text is None else Monitor.parse(text) for text in quiet]
    assert not [monitor for monitor in monitors if "below" in metrics_text(metrics, monitor)]
    # for either stage that selects the epoch
    assert "below" in metrics_text(metrics, Monitor.parse("clean/retrieval/sdc/accuracy@1"))
    assert "below" not in metrics_text(
        {"clean": of_tasks(retrieval={"sdc": 0.5})}, Monitor.parse("clean/retrieval/sdc/accuracy@1")
    )
