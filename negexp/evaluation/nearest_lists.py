"""The nearest candidates of some queries: scored columns, sorted, and lists of the k best with the golds among them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints
from negexp.index.base import nearest_first

Floats = NDArray[np.float64]


class Entries(NamedTuple):
    """Scored members of the groups of some queries (entries,), see `Grouping`.

    They are sorted by query, best first; of equal scores, the lower column is first.
    """

    query: Ints
    member: Ints
    column: Ints
    score: Floats

    @classmethod
    def of(cls, query: Ints, member: Ints, column: Ints, score: Floats) -> Entries:
        """Sort entries; those of a query must be together, queries ascending."""
        order = nearest_first(query, -score, column)
        return cls(query[order], member[order], column[order], score[order])

    def where(self, kept: NDArray[np.bool_]) -> Entries:
        """Return some of the entries."""
        return Entries(self.query[kept], self.member[kept], self.column[kept], self.score[kept])

    def place(self) -> Ints:
        """Return the position of each entry among its query's."""
        return _place(self.query)


class Nearest(NamedTuple):
    """The k best candidates of some queries, best first (queries, k).

    score: -inf where a query has fewer candidates. column: 0 there. slot: the gold that a candidate is, or is a copy
    of, as a place in `Golds`; -1 for none.
    """

    score: Floats
    column: Ints
    slot: Ints

    @property
    def there(self) -> NDArray[np.bool_]:
        """Return whether there is a candidate (queries, k)."""
        return np.isfinite(self.score)

    @classmethod
    def of(cls, entries: Entries, queries: int, k: int) -> Nearest:
        """Return the first k entries of each query; none is a gold."""
        place = entries.place()
        kept = place < k
        cells = entries.query[kept], place[kept]
        score, column = np.full((queries, k), -np.inf), np.zeros((queries, k), dtype=np.int64)
        score[cells], column[cells] = entries.score[kept], entries.column[kept]
        return cls(score, column, np.full((queries, k), -1))

    def take(self, part: slice | tuple[slice, slice] | NDArray[np.bool_]) -> Nearest:
        """Return some queries, or some places of all lists."""
        return Nearest(self.score[part], self.column[part], self.slot[part])

    def with_golds(self, query: Ints, slot: Ints, column: Ints, score: Floats) -> Nearest:
        """Return the k best of these candidates and of some golds (golds,)."""
        order = np.lexsort((column, -score, query))
        query, slot, column, score = query[order], slot[order], column[order], score[order]
        place, k = _place(query), self.score.shape[1]
        result = Nearest(self.score.copy(), self.column.copy(), self.slot.copy())
        for number in range(min(k, 1 + int(place.max(initial=-1)))):
            some = place == number
            result._insert(query[some], Nearest(score[some], column[some], slot[some]))
        return result

    def _insert(self, query: Ints, new: Nearest) -> None:
        """Insert one candidate (queries,) into the list of each query, where it belongs."""
        score, column, own = self.score[query], self.column[query], new.score[:, None]
        before = (score > own) | ((score == own) & (column < new.column[:, None]))
        index, position = np.arange(score.shape[1]), before.sum(axis=1)
        source = index - (index > position[:, None])
        fits = np.flatnonzero(position < len(index))
        for values, inserted in zip(self, new, strict=True):
            moved = np.take_along_axis(values[query], source, axis=1)
            moved[fits, position[fits]] = inserted[fits]
            values[query] = moved


def _place(query: Ints) -> Ints:
    """Return the position of each entry among those of its query; queries ascend."""
    first = np.flatnonzero(np.diff(query, prepend=-1))
    return np.arange(len(query)) - np.repeat(first, np.diff(first, append=len(query)))
