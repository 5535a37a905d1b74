"""Candidate pools over a collection of documents: they take the place of the counters, each document once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from negexp.corpus.argument_numbers import ArgumentNumbers
from negexp.corpus.arguments import Ints, Split
from negexp.corpus.collection import Collection
from negexp.evaluation.pool import Pool, first_copies, positions


def collection_queries(split: Split, collection: Collection, protocol: str) -> Ints:
    """Return the rows that are queries: the first row of each query with a gold that is not the query itself.

    clean: queries with the same text and the same golds, apart from copies, are one query; a copy of the query is no
    gold.
    """
    rows = np.flatnonzero(collection.first_of_query())
    document, identity, _ = _golds(split, collection, rows)
    document = np.where(document == collection.itself[rows, None], -1, document)
    if protocol == "published":
        return rows[(document >= 0).any(axis=1)]
    identity = np.where(identity == split.point_identity[rows, None], -1, identity)
    identity = np.where(identity == _own_identity(split, collection, rows)[:, None], -1, identity)
    kept, known = [], set()
    for row, golds in zip(rows.tolist(), identity.tolist(), strict=True):
        key = (int(split.point_identity[row]), *sorted({gold for gold in golds if gold >= 0}))
        if len(key) > 1 and key not in known:
            known.add(key)
            kept.append(row)
    return np.array(kept, dtype=np.int64)


def documents_of(collection: Collection, rows: Ints | None) -> Ints:
    """Return the golds of the queries of some pairs, ascending; None: all documents."""
    if rows is None:
        return np.arange(len(collection))
    golds = collection.golds
    return np.unique(golds.document[np.isin(golds.query, collection.query[rows])])


def collection_pool(split: Split, protocol: str, query: Ints, documents: Ints, points: Ints) -> Pool:
    """Return the pool of some queries: documents, then the first point of each query among the rows `points`.

    published: a query's own point and the document that is the query are no candidates. clean: nor are copies of them.
    """
    collection = split.collection
    assert collection is not None
    points = points[collection.first_of_query()[points]]
    numbers = ArgumentNumbers(len(split), len(collection))
    argument = np.concatenate([numbers.number("document", documents), numbers.number("point", points)])
    text = np.concatenate([collection.text[documents], split.point[points]])
    identity = split.identify(text)
    if protocol == "clean":
        argument, text, identity = first_copies(argument, text, identity)
        own = [split.point_identity[query], _own_identity(split, collection, query)]
        excluded = np.stack([positions(identity, values) for values in own], axis=1)
    else:
        itself = collection.itself[query]
        own = [query, np.where(itself < 0, -1, numbers.number("document", itself))]
        excluded = np.stack([positions(argument, values) for values in own], axis=1)
    document, gold_identity, grade = _golds(split, collection, query)
    golds = numbers.number("document", document), collection.text[document], gold_identity, grade
    pool = Pool(query, split.point[query], *golds, argument, text, identity, excluded, split.respelled)
    return _with_golds_in_pool(pool)


def _golds(split: Split, collection: Collection, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Return documents, identities and grades (rows, golds) of the golds of some pairs' queries; -1, -1, 0: none.

    Of golds that are copies of each other, the one with the highest grade remains.
    """
    document, grade = collection.golds.table(collection.query[rows])
    identity = np.where(document < 0, -1, split.identify(collection.text[document]))
    for column in range(identity.shape[1] - 1):  # grades ascend
        later = (identity[:, column + 1 :] == identity[:, column, None]).any(axis=1)
        document[later, column], identity[later, column], grade[later, column] = -1, -1, 0
    return document, identity, grade


def _own_identity(split: Split, collection: Collection, rows: Ints) -> Ints:
    """Return the identity of the document that is the query (rows,), -1 where there is none."""
    itself = collection.itself[rows]
    return np.where(itself < 0, -1, split.identify(collection.text[itself]))


def _with_golds_in_pool(pool: Pool) -> Pool:
    """Return the pool without golds that are no candidates."""
    query, slot, _ = pool.gold_cells()
    inside = np.zeros(pool.gold_identity.shape, dtype=np.bool_)
    inside[query, slot] = True
    identity, grade = np.where(inside, pool.gold_identity, -1), np.where(inside, pool.gold_grade, 0)
    return replace(pool, gold_identity=identity, gold_grade=grade)
