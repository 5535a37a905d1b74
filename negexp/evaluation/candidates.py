"""All arguments that can be candidates of a split, as columns; which of them are a query's golds, and which are itself.

The columns are the counters, or the documents of a collection, and then the points. This order breaks ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from negexp.corpus.argument_numbers import ArgumentNumbers
from negexp.corpus.arguments import Ints, Split
from negexp.corpus.collection import Collection


class Golds(NamedTuple):
    """The golds of some queries (queries, golds).

    argument: their numbers, see `ArgumentNumbers`. identity: equal for all copies of a text, see `Split.identity`; -1
    where a query has fewer golds. grade: how good an answer each is; 0 where a query has fewer.
    """

    argument: Ints
    identity: Ints
    grade: Ints


@dataclass(frozen=True)
class Candidates:
    """The columns of a split.

    argument, text, identity (columns,): number, text (row of `Corpus.texts`) and identity of each column. points: the
    first column that is a point.
    """

    split: Split
    argument: Ints
    text: Ints
    identity: Ints
    points: int

    @classmethod
    def of(cls, split: Split) -> Candidates:
        """Return all counters and points; with a collection, all documents and the first point of each query."""
        collection = split.collection
        if collection is None:
            first, text, rows = "counter", split.counter, np.arange(len(split))
        else:
            first, text, rows = "document", collection.text, np.flatnonzero(collection.first_of_query())
        numbers = ArgumentNumbers(len(split), 0 if collection is None else len(collection))
        argument = [numbers.number(first, np.arange(len(text))), numbers.number("point", rows)]
        texts = np.concatenate([text, split.point[rows]])
        return cls(split, np.concatenate(argument), texts, split.identify(texts), len(text))

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def point_rows(self) -> Ints:
        """Return the row of each column that is a point."""
        return self.argument[self.points :]  # points have the numbers of their rows

    @cached_property
    def identities(self) -> int:
        """Return a number above all identities."""
        return int(self.identity.max(initial=0)) + 1

    def itself(self, rows: Ints) -> Ints:
        """Return the columns (queries, 1 or 2) that are the queries themselves: points and documents; -1 for none."""
        own = self.points + np.searchsorted(self.point_rows, rows)
        if self.split.collection is None:
            return own[:, None]
        return np.stack([own, self.split.collection.itself[rows]], axis=1)

    def own_identities(self, rows: Ints) -> Ints:
        """Return the identities (queries, 1 or 2) of the columns `itself`, -1 for none."""
        column = self.itself(rows)
        return np.where(column < 0, -1, self.identity[column])

    def golds(self, rows: Ints) -> Golds:
        """Return the golds of some queries: their counters, or the documents that are judged."""
        collection = self.split.collection
        if collection is not None:
            document, identity, grade = judged_documents(self.split, collection, rows)
            return Golds(self.argument[document], identity, grade)
        row = rows[:, None]
        return Golds(self.argument[row], self.split.counter_identity[row], np.ones_like(row))


def judged_documents(split: Split, collection: Collection, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Return documents, identities and grades (rows, golds) of the golds of some pairs' queries; -1, -1, 0: none.

    Of golds that are copies of each other, the one with the highest grade remains.
    """
    document, grade = collection.golds.table(collection.query[rows])
    identity = np.where(document < 0, -1, split.identify(collection.text[document]))
    for column in range(identity.shape[1] - 1):  # grades ascend
        later = (identity[:, column + 1 :] == identity[:, column, None]).any(axis=1)
        document[later, column], identity[later, column], grade[later, column] = -1, -1, 0
    return document, identity, grade


def collection_queries(split: Split, collection: Collection, protocol: str) -> Ints:
    """Return the rows that are queries: the first row of each query with a gold that is not the query itself.

    clean: queries with the same text and the same golds, apart from copies, are one query; a copy of the query is no
    gold.
    """
    rows = np.flatnonzero(collection.first_of_query())
    document, identity, _ = judged_documents(split, collection, rows)
    document = np.where(document == collection.itself[rows, None], -1, document)
    if protocol == "published":
        return rows[(document >= 0).any(axis=1)]
    identity = np.where(identity == split.point_identity[rows, None], -1, identity)
    itself = collection.itself[rows]
    own = np.where(itself < 0, -1, split.identify(collection.text[itself]))
    identity = np.where(identity == own[:, None], -1, identity)
    kept, known = [], set()
    for row, golds in zip(rows.tolist(), identity.tolist(), strict=True):
        key = (int(split.point_identity[row]), *sorted({gold for gold in golds if gold >= 0}))
        if len(key) > 1 and key not in known:
            known.add(key)
            kept.append(row)
    return np.array(kept, dtype=np.int64)
