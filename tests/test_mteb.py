"""mteb's retrieval task gives an exported folder the numbers that negexp gives its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Train
from exported import exported_run

mteb = pytest.importorskip("mteb")
retrieval = pytest.importorskip("mteb.abstasks.retrieval")
task_metadata = pytest.importorskip("mteb.abstasks.task_metadata")
datasets = pytest.importorskip("datasets")
pytest.importorskip("sentence_transformers")


def counter_task(queries: dict[str, str], documents: dict[str, str], gold: dict[str, str]) -> Any:
    """Return a retrieval task of mteb over these texts, as ArguAna is one: identical ids are ignored."""
    metadata = task_metadata.TaskMetadata(
        name="Counters",
        description="counters of points",
        reference="https://example.org",
        dataset={"path": "none/none", "revision": "0"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2018-01-01", "2018-07-01"),
        domains=["Written"],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="found",
        bibtex_citation="",
    )

    def load_data(self: Any, *args: object, **keys: object) -> None:
        rows = [[{"id": id_, "text": text} for id_, text in texts.items()] for texts in (documents, queries)]
        corpus, asked = map(datasets.Dataset.from_list, rows)
        relevant = {query: {document: 1} for query, document in gold.items()}
        split = {"corpus": corpus, "queries": asked, "relevant_docs": relevant, "top_ranked": None}
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True

    parts = {"metadata": metadata, "ignore_identical_ids": True, "load_data": load_data}
    return type("Counters", (retrieval.AbsTaskRetrieval,), parts)()


@pytest.mark.parametrize("task", ["epc", "epa"])
@pytest.mark.runs
def test_mteb_gives_the_same_numbers(task: str, run_training: Train, tmp_path: Path) -> None:
    exported = exported_run(run_training, tmp_path / "out")
    points = {f"point-{row}": text for row, text in enumerate(exported.points)}
    counters = {f"counter-{row}": text for row, text in enumerate(exported.counters)}
    documents = counters if task == "epc" else counters | points
    gold = dict(zip(points, counters, strict=True))
    found = mteb.evaluate(exported.model, counter_task(points, documents, gold), cache=None, show_progress_bar=False)
    scores = found.task_results[0].scores["test"][0]
    names = {f"hit_rate_at_{k}": f"accuracy@{k}" for k in (1, 5, 10)}
    names |= {"ndcg_at_10": "ndcg@10", "mrr_at_1000": "mrr"}
    for name, metric in names.items():
        expected = pytest.approx(exported.own[task][metric], abs=1e-5)  # mteb rounds to five decimals
        assert scores[name] == expected, metric
