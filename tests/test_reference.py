"""The real corpus: its counts, its pools, and the TF-IDF reference values of both protocols.

No text of the corpus may stand in this repository; the archive is read where it lies.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import compose_train
from sklearn.feature_extraction.text import TfidfVectorizer

from negexp.corpus.arguments import Corpus
from negexp.corpus.load import load_corpus
from negexp.evaluation import METRICS, TASKS, MatrixScorer, StageScorers, rank_queries, summarise
from negexp.evaluation.metrics import Metrics

SHARED = Path(__file__).resolve().parents[2] / "shared"
CORPUS = Path(os.environ.get("NEGEXP_ARGUANA") or SHARED / "data" / "arguana-counterargs-corpus.tar.gz")
REFERENCE = SHARED / "reference"
BLOCK_BYTES = 1 << 26

pytestmark = pytest.mark.arguana


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    if not CORPUS.exists():
        pytest.skip(f"{CORPUS} is absent; set NEGEXP_ARGUANA to the ArguAna counterargs corpus")
    return load_corpus(compose_train("data=arguana", f"data.path={CORPUS}").data)


@pytest.fixture(scope="module")
def tfidf(corpus: Corpus) -> Metrics:
    split = corpus["validation"]
    paired = [corpus.texts[row] for row in [*split.point, *split.counter]]
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(paired)
    texts = split.texts()
    vectors = vectorizer.transform([corpus.texts[row] for row in texts])
    products = (vectors @ vectors.T).toarray()  # (texts, texts)

    def score(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        rows, columns = np.searchsorted(texts, queries), np.searchsorted(texts, candidates)
        found: np.ndarray = products[np.ix_(rows, columns)]
        return found

    return summarise(rank_queries(split, StageScorers(MatrixScorer(score), None), 10, BLOCK_BYTES))


@pytest.fixture(scope="module")
def constant_on_test(corpus: Corpus) -> Metrics:
    constant = StageScorers(MatrixScorer(lambda q, c: np.zeros((len(q), len(c)))), None)
    ranks = rank_queries(corpus["test"], constant, 10, BLOCK_BYTES)
    return summarise(ranks)


@pytest.mark.runs
def test_counts_are_those_of_the_paper(corpus: Corpus) -> None:
    columns = ("points", "counters", "pairs", "debates")
    counts = {split: tuple(count[column] for column in columns) for split, count in corpus.counts.items()}
    assert counts == {
        "train": (4083, 4065, 4065, 551),
        "validation": (1290, 1287, 1287, 178),
        "test": (1406, 1401, 1401, 189),
    }
    assert len({id_.split("/")[0] for split in corpus.splits.values() for id_ in split.ids}) == 15


def test_training_uses_2016_pairs_and_the_others_keep_their_rows(corpus: Corpus) -> None:
    assert {name: len(split) for name, split in corpus.splits.items()} == {
        "train": 2016,
        "validation": 1287,
        "test": 1401,
    }


@pytest.mark.runs
def test_what_is_shared_stays_what_exact_matching_finds(corpus: Corpus) -> None:
    exact = load_corpus(compose_train("data=arguana", f"data.path={CORPUS}", "data.match=exact").data)
    assert (corpus.match, exact.match) == ("normalized", "exact")
    for found in (corpus, exact):
        for phrase in (
            "In training 1844 points occur more than once",
            "574 validation and 618 test pairs with training",
            "shares a text with 235 of the 1401 test pairs",
            "Training uses 2016 pairs.",
        ):
            assert phrase in found.summary
        points = found["test"].point_identity
        assert sum(int((points == point).sum()) > 1 for point in points) == 214
        assert len(np.unique(found["test"].identify(np.arange(len(found.texts))))) == len(found.texts) == 8550
    assert corpus.contents == exact.contents


@pytest.mark.runs
def test_pools_of_the_test_split_have_the_papers_sizes(constant_on_test: Metrics) -> None:
    published = constant_on_test["published"]["retrieval"]
    assert list(published) == [task.name for task in TASKS]
    assert published["epa"]["candidates"] == 2801
    assert published["sdc"]["candidates"] == pytest.approx(7.65, abs=0.005)
    assert {values["queries"] for values in published.values()} == {1401}


@pytest.mark.parametrize("protocol", ["published", "clean"])
@pytest.mark.parametrize("task", ["stc", "sta", "epc", "epa"])
def test_a_constant_scorer_gets_nothing(constant_on_test: Metrics, protocol: str, task: str) -> None:
    assert constant_on_test[protocol]["retrieval"][task]["accuracy@10"] == 0


@pytest.mark.parametrize("protocol", ["published", "clean"])
@pytest.mark.runs
def test_tfidf_has_the_reference_values(tfidf: Metrics, protocol: str) -> None:
    file = REFERENCE / f"validation_tfidf_{protocol}.csv"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    expected = pd.read_csv(file, index_col=0)
    assert set(expected) == {*METRICS, "candidates", "queries"}
    found = pd.DataFrame(tfidf[protocol]["retrieval"]).T.loc[expected.index, expected.columns]
    np.testing.assert_allclose(found.to_numpy(dtype=float), expected.to_numpy(dtype=float), rtol=0, atol=5e-4)
