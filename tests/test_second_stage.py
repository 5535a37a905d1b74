"""Re-ranking by both scores: against plain loops, and in runs that choose the weight on validation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Train
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_evaluation import LARGE, Case, as_table, cases, config, lookup, one_debate, reference_ranks, scorers_of
from test_trec import check_metrics

from negexp.cli import main
from negexp.evaluation import Combination, rank_queries, summarise
from negexp.evaluation.metrics import rank_metrics
from negexp.evaluation.monitor import Monitor
from negexp.evaluation.pools import TASKS, possible_tasks, protocol_queries
from negexp.evaluation.ranking import shortlists
from negexp.evaluation.second_stage import Shortlist
from negexp.evaluation.trec import TrecExport
from negexp.evaluation.weight import WEIGHTS, best_combination, choose_combination, spread_ratio

SMOKE = "experiment=smoke"
# dyadic, so that the reference has the same ties
COMBINATIONS = st.builds(Combination, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.sampled_from([0.5, 1.0, 2.0]))


def ranked(case: Case, combination: Combination, k: int, block_bytes: int = LARGE) -> pd.DataFrame:
    return rank_queries(case.split, scorers_of(case)._replace(combination=combination), k, block_bytes)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(case=cases(), combination=COMBINATIONS, k=st.integers(1, 6), block_bytes=st.sampled_from([1, LARGE]))
def test_combined_ranks_equal_the_reference(case: Case, combination: Combination, k: int, block_bytes: int) -> None:
    weight, scale = combination
    combined = (1 - weight) * case.classifier_scores + weight * scale * case.scores
    expected = reference_ranks(case.split, lookup(case.scores), lookup(combined), k)
    assert as_table(ranked(case, combination, k, block_bytes)) == expected


@settings(deadline=None, derandomize=True, max_examples=20)
@given(case=st.one_of(cases(), cases(respelled=True)), k=st.integers(1, 6))
def test_the_weight_1_gives_the_retrieval_ranks(case: Case, k: int) -> None:
    ranks = ranked(case, Combination(1.0, 3.0), k)
    reranked, retrieval = (
        ranks[ranks["stage"] == stage].drop(columns="stage").reset_index(drop=True)
        for stage in ("reranked", "retrieval")
    )
    pd.testing.assert_frame_equal(reranked, retrieval)


def list_of(is_gold: list[int], retrieval: list[float], classifier: list[float]) -> Shortlist:
    """Return the shortlist of one query, its candidates ordered as given."""
    rows = [np.array([row], dtype=np.float64) for row in (retrieval, classifier)]
    gold = np.array([is_gold], dtype=bool)
    nothing = np.zeros(1)
    return Shortlist(
        np.array([9]), np.arange(len(is_gold))[None], gold, rows[0], rows[1], gold * 1.0, beyond=nothing, ndcg=nothing
    )


def test_a_gold_outside_the_list_keeps_its_rank_and_missing_candidates_count_nothing() -> None:
    nothing = [-np.inf, -np.inf]
    outside = list_of([0, 0, 0, 0], [-1, -2, *nothing], [0, 5, *nothing])
    for weight in WEIGHTS:
        assert outside.reranked(Combination(weight))[0].tolist() == [9]
    inside = list_of([0, 1, 0, 0], [-1, -2, *nothing], [0, 5, *nothing])
    ranks, first, _ = inside.reranked(Combination(0.5))
    assert (ranks.tolist(), first.tolist()) == ([1], [1])
    ranks, first, _ = inside.reranked(Combination(0.5, 5.0))  # 0 - 2.5 against 2.5 - 5: equal, against the gold
    assert (ranks.tolist(), first.tolist()) == ([2], [0])


@settings(deadline=None, derandomize=True, max_examples=6)
@given(case=cases(), k=st.integers(1, 6), data=st.data())
def test_the_best_weight_is_that_of_a_search_over_whole_rankings(case: Case, k: int, data: st.DataObject) -> None:
    assume(len(protocol_queries(case.split, "clean")))
    task = data.draw(st.sampled_from(possible_tasks(case.split)[0])).name
    monitor = Monitor("clean", "reranked", task, data.draw(st.sampled_from(["accuracy@1", "mrr"])))
    chosen = choose_combination(scorers_of(case), case.split, monitor, config(k))
    assert chosen is not None
    values = []
    for weight in WEIGHTS:
        metrics = summarise(ranked(case, Combination(weight, chosen.scale), k))["clean"]["reranked"][task]
        values.append((metrics[monitor.metric], metrics["mrr"], weight))
    assert max(values)[2] == chosen.weight
    retrieval = summarise(ranked(case, chosen, k))["clean"]["retrieval"][task]
    assert max(values)[0] >= retrieval[monitor.metric]


def test_the_scale_is_the_ratio_of_the_spreads_within_the_lists() -> None:
    rng = np.random.default_rng(3)
    retrieval, classifier = -rng.random((5, 4)), 30 * rng.normal(size=(5, 4))
    retrieval[0, 3] = classifier[0, 3] = -np.inf  # a shorter list
    text = np.zeros((5, 4), dtype=np.int64)
    gain, nothing = np.zeros((5, 4)), np.zeros(5)
    ones = np.ones(5, dtype=np.int64)
    nearest = Shortlist(ones, text, text > 0, retrieval, classifier, gain, beyond=nothing, ndcg=nothing)

    def spread(scores: np.ndarray) -> float:
        real = [[value for value in row if value > -np.inf] for row in scores.tolist()]
        squares = [(value - sum(row) / len(row)) ** 2 for row in real for value in row]
        return float((sum(squares) / len(squares)) ** 0.5)

    assert spread_ratio(nearest) == pytest.approx(spread(classifier) / spread(retrieval))
    assert spread_ratio(nearest._replace(classifier=np.ones((5, 4)))) == 1.0


def test_of_weights_with_equal_values_the_largest_is_chosen() -> None:
    nearest = list_of([1, 0], [-1, -2], [5, 0])._replace(rank=np.array([1]))  # the gold is first in any case
    assert best_combination(nearest, 1.0, "accuracy@1").weight == 1.0
    assert rank_metrics(nearest.reranked(Combination(0.0))[0])["accuracy@1"] == 1.0


@settings(deadline=None, derandomize=True, max_examples=15)
@given(case=st.one_of(cases(), cases(respelled=True)), combination=COMBINATIONS, k=st.integers(1, 6))
@pytest.mark.runs
def test_trec_files_have_the_combined_order(case: Case, combination: Combination, k: int) -> None:
    assume(len(protocol_queries(case.split, "clean")))
    scorers = scorers_of(case)._replace(combination=combination)
    files = TrecExport(case.split, scorers, config(k), None).files("test")
    check_metrics({name: text.decode() for name, text in files}, summarise(ranked(case, combination, k)))


def test_a_shortlist_has_the_queries_of_its_task() -> None:
    rng = np.random.default_rng(0)
    split = one_debate(point=[0, 1, 2], counter=[3, 4, 5])
    case = Case(split, rng.normal(size=(6, 6)), rng.normal(size=(6, 6)))
    for task in TASKS:
        assert len(shortlists(split, "clean", task, scorers_of(case), config(9)).rank) == 3


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.runs
def test_a_run_commits_its_weight_and_an_evaluation_uses_it(
    finished_run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(SMOKE)
    monkeypatch.chdir(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    row = pd.read_csv(folder / "metrics.csv").iloc[result["best_epoch"]]
    assert (result["rerank_weight"], result["rerank_scale"]) == (row["rerank_weight"], row["rerank_scale"])
    assert result["rerank_weight"] in WEIGHTS
    for scores in result["untrained"].values():  # an untrained classifier has no say
        assert scores["clean"]["reranked"] == scores["clean"]["retrieval"]
    reranked, retrieval = (
        result["validation"]["clean"][stage]["epa"]["accuracy@1"] for stage in ("reranked", "retrieval")
    )
    assert reranked >= retrieval

    def metrics(*overrides: str) -> dict[str, dict[str, object]]:
        assert main(["evaluate", f"run={folder}", "output=out", "device=cpu", "progress=never", *overrides]) == 0
        found: dict[str, dict[str, object]] = json.loads((tmp_path / "out/evaluation/test.json").read_text())["metrics"]
        return found

    assert metrics() == result["test"]
    by_distance = metrics("evaluation.rerank_weight=1")
    assert all(stages["reranked"] == stages["retrieval"] for stages in by_distance.values())
    earlier = Path(__file__).parent / "data" / "run-0.1"
    capsys.readouterr()
    assert main(["evaluate", f"run={earlier}", "output=out", "evaluation.rerank_weight=0.5"]) == 2
    assert capsys.readouterr().err.endswith("has no rerank_scale, as runs of version 0.1; give 0 or 1\n")


def test_a_classifier_that_no_loss_trains_has_no_say_unless_a_weight_is_given(run_training: Train) -> None:
    weights = []
    for folder, overrides in (("a", []), ("b", ["evaluation.rerank_weight=0.25"])):
        run = run_training(SMOKE, "loss=triplet", "trainer.epochs=1", *overrides, folder=folder)
        weights.append(json.loads((run / "result.json").read_text())["rerank_weight"])
    assert weights == [1.0, 0.25]
