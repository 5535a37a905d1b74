"""BM25 scores between the texts of a corpus, from the library bm25s (Lù 2024, arXiv 2407.03618)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from negexp.config import BM25Config
from negexp.errors import InputError
from negexp.modules import hidden
from negexp.paired import paired_scores

with hidden("jax"):  # bm25s would start it for its own search, and JAX takes most of a GPU's memory
    import bm25s

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class BM25:
    """BM25 of some texts of a corpus as queries and as documents.

    Words are two or more letters, digits or underscores, in lower case (bm25s's own splitting), without stemming. If a
    query repeats a word, the word counts each time. The numbers of documents with a word, and the mean length, are
    those of the given texts, each distinct text once.

    A score is a sum over the query's words in a fixed order, in float64: it has the same bits whatever else is scored
    in the same call, and equal texts have equal scores.

    Parameters
    ----------
    texts
        All texts of a corpus.
    rows
        The texts that are documents and queries, as rows of `texts`, each once.
    options
        k1, b, the variant of the formula, and the words that do not count.

    Raises
    ------
    InputError
        When no text has a word.
    """

    def __init__(self, texts: Sequence[str], rows: Ints, options: BM25Config) -> None:
        stop_words = None if options.stop_words == "none" else options.stop_words
        words, vocabulary = bm25s.tokenize([texts[row] for row in rows], stopwords=stop_words, show_progress=False)
        if not vocabulary:
            raise InputError(
                "BM25: no text has a word that counts (two letters or digits in a row), so no two texts can be "
                "compared; use sampler.source=embeddings to train, and another model to evaluate"
            )
        index = bm25s.BM25(k1=options.k1, b=options.b, method=options.method, dtype="float64")
        found = index.build_index_from_ids(list(range(len(vocabulary))), words, show_progress=False)
        shape = len(rows), len(vocabulary)
        self._document = csc_array((found["data"], found["indices"], found["indptr"]), shape=shape).tocsr()
        starts = np.cumsum([0, *map(len, words)])
        every_word = np.fromiter((word for text in words for word in text), dtype=np.int64, count=int(starts[-1]))
        self._query = csr_array((np.ones(len(every_word)), every_word, starts), shape=shape)
        self._query.sum_duplicates()
        self._place = np.full(len(texts), -1, dtype=np.int64)
        self._place[rows] = np.arange(len(rows))

    def scores(self, query: Ints, document: Ints) -> Floats:
        """Return the score (queries, documents) of each document for each query; both are rows of the corpus."""
        row, column = self._place[query], self._place[document]
        found: Floats = (self._query[row] @ self._document[column].T).toarray()
        return found

    def paired(self, query: Ints, document: Ints) -> Floats:
        """Return the score (queries,) of each query's own document; the same bits as in `scores`."""
        return paired_scores(self.scores, query, document)
