"""Exact candidates from a search whose distances have rounding errors: it looks for more where a tie could be cut."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from negexp.index.base import Candidates, Floats, Ints, NeighbourIndex


class WideningIndex(NeighbourIndex):
    """An index over a search for the `width` nearest vectors, whose squared distances have a bounded error.

    It looks for more than k vectors. Where one beyond the last of them may be as near as the k-th, it looks for twice
    as many.
    """

    @abstractmethod
    def _nearest(self, queries: np.ndarray, k: int, width: int) -> tuple[Floats, Ints]:
        """Return squared distances and vectors (queries, width) of the nearest, nearest first.

        If the search is approximate and finds no more, those after the k-th may be infinite and -1.
        """

    @abstractmethod
    def _error(self, queries: np.ndarray) -> Floats:
        """Return a bound (queries,) on the error of a squared distance."""

    def _width(self, k: int) -> int:
        """Return how many vectors to look for at first."""
        return k + 1

    def _queries_at_a_time(self, k: int) -> int:
        return self.most_candidates // self._width(k)

    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        candidates = Candidates(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        error, every = self._error(queries), len(self.vectors)
        todo, width = np.arange(len(queries)), min(self._width(k), every)
        while len(todo):
            if len(queries) > 1 and len(candidates.query) + len(todo) * width > self.most_candidates:
                return None
            squared, vectors = self._nearest(queries[todo], k, width)
            closed = (squared[:, -1] - squared[:, k - 1] > 2 * error[todo]) | (width == every)
            one, column = np.nonzero(vectors[closed] >= 0)
            found = Candidates(todo[closed][one], vectors[closed][one, column])
            candidates = Candidates(*(np.concatenate(parts) for parts in zip(candidates, found, strict=True)))
            todo, width = todo[~closed], min(2 * width, every)
        order = np.argsort(candidates.query, kind="stable")
        return Candidates(candidates.query[order], candidates.vector[order])
