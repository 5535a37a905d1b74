"""The documents that are searched, where they are more than the pairs' counters or a query has several golds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Document(NamedTuple):
    """One document from a reader."""

    id: str
    text: str


@dataclass(frozen=True)
class Golds:
    """The relevant documents of the queries of a split.

    query (golds,): numbers as in `Collection.query`, ascending. document (golds,): rows of `Collection.text`. grade
    (golds,): above 0; a higher grade is a better answer.
    """

    query: Ints
    document: Ints
    grade: Ints

    def table(self, queries: Ints) -> tuple[Ints, Ints]:
        """Return documents (queries, golds), -1 where a query has fewer, and their grades, 0 there; grades ascend.

        >>> golds = Golds(np.array([0, 0, 2]), np.array([5, 7, 5]), np.array([2, 1, 1]))
        >>> [part.tolist() for part in golds.table(np.array([2, 0]))]
        [[[5, -1], [7, 5]], [[1, 0], [1, 2]]]
        """
        start, stop = (np.searchsorted(self.query, queries, side) for side in ("left", "right"))
        column = np.arange(int((stop - start).max(initial=0)))
        place = start[:, None] + column
        known = place < stop[:, None]
        place = np.minimum(place, max(0, len(self.query) - 1))
        grade = np.where(known, self.grade[place], np.iinfo(np.int64).max)
        order = np.argsort(grade, axis=1, kind="stable")
        document, grade = (np.take_along_axis(values, order, axis=1) for values in (self.document[place], grade))
        known = np.take_along_axis(known, order, axis=1)
        return np.where(known, document, -1), np.where(known, grade, 0)


@dataclass(frozen=True)
class Collection:
    """The documents of a corpus, and how the pairs of a split refer to them.

    ids, text (documents,): id and text (row of `Corpus.texts`) of each document, the same in all splits.
    query (pairs,): the same number for all pairs of a query. counter (pairs,): the document that is the pair's counter.
    itself (pairs,): the document that is the query itself, -1 if there is none; it is never its candidate.
    golds: of all queries as they were read, also where a pair was dropped later.
    """

    ids: tuple[str, ...]
    text: Ints
    query: Ints
    counter: Ints
    itself: Ints
    golds: Golds

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Ints) -> Collection:
        """Return the same documents and golds, with the pairs of the given rows."""
        return replace(self, query=self.query[rows], counter=self.counter[rows], itself=self.itself[rows])

    def first_of_query(self) -> NDArray[np.bool_]:
        """Return a mask (pairs,) of the first pair of each query."""
        mask = np.zeros(len(self.query), dtype=np.bool_)
        mask[np.unique(self.query, return_index=True)[1]] = True
        return mask

    def paired(self) -> Ints:
        """Return the first pair (documents,) that has each document as its counter, -1 where there is none."""
        document, first = np.unique(self.counter, return_index=True)
        pair = np.full(len(self), -1, dtype=np.int64)
        pair[document] = first
        return pair

    def contents(self, texts: Sequence[str]) -> list[str]:
        """Return all that distinguishes this collection from another one, apart from texts and ids of the pairs."""
        numbers = [self.query, self.counter, self.itself, *vars(self.golds).values()]
        return [*self.ids, *(texts[text] for text in self.text), *(repr(values.tolist()) for values in numbers)]
