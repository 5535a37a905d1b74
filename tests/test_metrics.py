"""Metrics of ranks, their tables, and the files of an evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from negexp.evaluation.metrics import METRICS, metric_columns, rank_metrics, summarise
from negexp.evaluation.report_text import metrics_table
from negexp.tracking.run_folder import write_evaluation

VALUES = {"accuracy@1", "accuracy@5", "accuracy@10", "mrr", "ndcg@10", "candidates", "queries"}


@pytest.fixture
def ranks() -> pd.DataFrame:
    """Three queries in two tasks. Re-ranking puts every gold first."""
    rows = [
        (f"theme/debate/pro0{query}", protocol, stage, task, rank if stage == "retrieval" else 1, pool, query == 1)
        for protocol in ("published", "clean")
        for stage in ("retrieval", "reranked")
        for task, pool in (("sdc", 8), ("epa", 30))
        for query, rank in ((1, 1), (2, 5), (3, 20))
    ]
    columns = ["query", "protocol", "stage", "task", "rank", "candidates", "seen_in_training"]
    return pd.DataFrame(rows, columns=columns)


def test_metrics_of_known_ranks() -> None:
    assert rank_metrics(np.array([1, 3, 10, 11])) == pytest.approx(
        {
            "accuracy@1": 1 / 4,
            "accuracy@5": 2 / 4,
            "accuracy@10": 3 / 4,
            "mrr": (1 + 1 / 3 + 1 / 10 + 1 / 11) / 4,
            "ndcg@10": (1 + 1 / 2 + 1 / math.log2(11) + 0) / 4,
        }
    )


@settings(deadline=None, derandomize=True, max_examples=30)
@given(ranks=st.lists(st.integers(1, 25), min_size=1, max_size=10))
def test_ndcg_equals_scikit_learns_with_one_relevant_candidate(ranks: list[int]) -> None:
    relevance = np.eye(25)[np.array(ranks) - 1]  # the only relevant candidate has the gold's rank
    scores = np.tile(-np.arange(25.0), (len(ranks), 1))
    assert rank_metrics(np.array(ranks))["ndcg@10"] == pytest.approx(ndcg_score(relevance, scores, k=10))


def test_summary_is_by_protocol_stage_and_task(ranks: pd.DataFrame) -> None:
    summary = summarise(ranks)
    assert list(summary) == ["published", "clean"]
    assert list(summary["clean"]) == ["retrieval", "reranked"]
    assert list(summary["clean"]["reranked"]) == ["sdc", "epa"]
    values = summary["published"]["retrieval"]["epa"]
    assert set(values) == VALUES
    assert (values["accuracy@1"], values["accuracy@10"]) == pytest.approx((1 / 3, 2 / 3))
    assert (values["candidates"], values["queries"]) == (30, 3)
    assert summary["published"]["reranked"]["epa"]["accuracy@1"] == 1


def test_metric_columns_have_every_metric_and_no_pool_size(ranks: pd.DataFrame) -> None:
    flat = metric_columns(summarise(ranks), "validation")
    assert len(flat) == 2 * 2 * 2 * len(METRICS)
    assert flat["validation/clean/retrieval/sdc/accuracy@5"] == pytest.approx(2 / 3)
    assert not any(name.endswith(("candidates", "queries")) for name in flat)


def test_the_printed_table_has_one_line_per_task(ranks: pd.DataFrame) -> None:
    first, second, *lines = metrics_table(summarise(ranks)).splitlines()
    columns = [(protocol + ",", stage) for protocol in ("published", "clean") for stage in ("retrieval", "reranked")]
    assert first.split() == [word for column in columns for word in column]
    assert second.split() == ["task", "candidates"] + ["acc@1", "acc@10"] * 4
    values = ["0.3333", "0.6667", "1.0000", "1.0000"] * 2
    assert [line.split() for line in lines] == [["sdc", "8.0", *values], ["epa", "30.0", *values]]


def test_evaluation_is_written_as_json_and_parquet(ranks: pd.DataFrame, tmp_path: Path) -> None:
    metrics = write_evaluation(tmp_path / "evaluation", "test", ranks)
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == ["test-ranks.parquet", "test.json"]
    written = json.loads((tmp_path / "evaluation" / "test.json").read_text(encoding="utf-8"))
    assert written["split"] == "test"
    assert written["metrics"] == metrics == summarise(ranks)
    assert set(written["metrics"]["published"]["reranked"]["sdc"]) >= VALUES
    table = pd.read_parquet(tmp_path / "evaluation" / "test-ranks.parquet")
    assert set(table) >= {"query", "protocol", "stage", "task", "rank", "candidates", "seen_in_training"}
    pd.testing.assert_frame_equal(table[list(ranks)], ranks)
