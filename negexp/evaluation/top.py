"""The best columns of a matrix of scores that is seen tile by tile."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints
from negexp.largest import largest_columns


class Top(NamedTuple):
    """Scores and columns (queries, k) of the best columns so far, best first. The lower of equal columns is first."""

    score: NDArray[np.float64]
    column: Ints

    def merged(self, scores: NDArray[np.float64], start: int, k: int) -> Top:
        """Return the k best of these columns and a tile of scores (queries, columns) that starts at `start`."""
        if self.score.shape[1] < k:
            columns = largest_columns(scores, min(k, scores.shape[1]))
            return self._with(np.take_along_axis(scores, columns, axis=1), start + columns, k)
        # only columns better than the present last one can enter; after a few tiles there are hardly any
        query, column = np.divmod(np.flatnonzero(scores > self.score[:, -1:]), scores.shape[1])
        queries, row = np.unique(query, return_inverse=True)
        if len(queries):
            place = (
                np.arange(len(query)) - np.searchsorted(query, queries)[row]
            )  # position among the query's better columns
            shape = len(queries), int(place.max()) + 1
            better, columns = np.full(shape, -np.inf), np.zeros(shape, dtype=np.int64)
            better[row, place], columns[row, place] = scores[query, column], start + column
            merged = Top(self.score[queries], self.column[queries])._with(better, columns, k)
            self.score[queries], self.column[queries] = merged
        return self

    def _with(self, score: NDArray[np.float64], column: Ints, k: int) -> Top:
        """Return the k best of these columns and of columns with higher numbers."""
        score, column = np.concatenate([self.score, score], axis=1), np.concatenate([self.column, column], axis=1)
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        return Top(np.take_along_axis(score, order, axis=1), np.take_along_axis(column, order, axis=1))
