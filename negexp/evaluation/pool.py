"""One candidate pool: queries that share their candidates, which of these are golds, and which are left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from negexp.corpus.arguments import Ints


@dataclass(frozen=True)
class Pool:
    """Queries that share their candidates, with their golds.

    query: rows of the split (queries,), and query_text: their texts. gold_argument, gold_text, gold_identity,
    gold_grade (queries, golds): number, text, identity and grade of each gold; identity -1 and grade 0 where a query
    has fewer. argument: the number of each candidate (columns,), see `ArgumentNumbers`. text: the text that is
    scored. identity: equal for all copies of a text, see `Split.identity`. excluded: (queries, any number) the
    columns that are no candidates of the query, its own point or a copy of it; -1 for none. respelled: copies may have
    different spellings.
    """

    query: Ints
    query_text: Ints
    gold_argument: Ints
    gold_text: Ints
    gold_identity: Ints
    gold_grade: Ints
    argument: Ints
    text: Ints
    identity: Ints
    excluded: Ints
    respelled: bool

    def part(self, start: int, stop: int) -> Pool:
        """Return the pool of the queries from `start` to `stop`."""
        of_query = ("query", "query_text", "gold_argument", "gold_text", "gold_identity", "gold_grade", "excluded")
        return replace(self, **{name: getattr(self, name)[start:stop] for name in of_query})

    def parts(self, size: int) -> Iterator[Pool]:
        """Yield pools of `size` queries each."""
        for start in range(0, len(self.query), size):
            yield self.part(start, start + size)

    @property
    def candidates(self) -> Ints:
        """Return the number of candidates of each query (queries,)."""
        own = np.sort(self.excluded, axis=1)
        repeated = (own[:, 1:] == own[:, :-1]) & (own[:, 1:] >= 0)
        candidates: Ints = len(self.text) - (own >= 0).sum(axis=1) + repeated.sum(axis=1)
        return candidates

    @property
    def allowed(self) -> np.ndarray:
        """Return whether each column is a candidate of each query (queries, columns)."""
        allowed: np.ndarray = np.ones((len(self.query), len(self.text)), dtype=np.bool_)
        query, place = np.nonzero(self.excluded >= 0)
        allowed[query, self.excluded[query, place]] = False
        return allowed

    @property
    def gold(self) -> Ints:
        """Return the gold that each column is, or is a copy of: a place in `gold_text`, -1 for none."""
        gold = np.full((len(self.query), len(self.text)), -1)
        query, slot, column = self.gold_cells()
        gold[query, column] = slot
        return gold

    def gold_cells(self) -> tuple[Ints, Ints, Ints]:
        """Return all candidates that are golds or copies of golds: query, place in `gold_text` and column, ascending.

        The three arrays have one entry for each combination.
        """
        order = np.argsort(self.identity, kind="stable")
        golds, ordered = self.gold_identity.ravel(), self.identity[order]
        start, stop = (np.searchsorted(ordered, golds, side) for side in ("left", "right"))
        count = stop - start
        cell = np.repeat(np.arange(len(count)), count)
        column = order[np.arange(len(cell)) + np.repeat(stop - np.cumsum(count), count)]
        query, slot = np.divmod(cell, max(1, self.gold_identity.shape[1]))
        candidate = (self.excluded[query] != column[:, None]).all(axis=1)
        query, slot, column = query[candidate], slot[candidate], column[candidate]
        order = np.argsort(column, kind="stable")
        return query[order], slot[order], column[order]

    def gold_texts(self) -> tuple[Ints, Ints, Ints]:
        """Return each distinct text of each gold (texts,): query, place in `gold_text`, text.

        A gold has several texts when its copies differ in spelling, see `data.match`.
        """
        if not self.respelled:
            query, slot = np.nonzero(self.gold_identity >= 0)
            return query, slot, self.gold_text[query, slot]
        query, slot, column = self.gold_cells()
        found = np.unique(np.stack([query, slot, self.text[column]]), axis=1)
        return found[0], found[1], found[2]


def first_copies(argument: Ints, text: Ints, identity: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the columns (columns,) without copies of an earlier column."""
    first = np.sort(np.unique(identity, return_index=True)[1])
    return argument[first], text[first], identity[first]


def positions(values: Ints, searched: Ints) -> Ints:
    """Return the position of each searched value among distinct values, -1 if it does not occur."""
    order = np.argsort(values, kind="stable")
    place = np.minimum(np.searchsorted(values[order], searched), len(values) - 1)
    return np.where(values[order[place]] == searched, order[place], -1)
