"""The recall of an approximate index: a sample of the queries that it searched is compared with exact search."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


class _Searched(NamedTuple):
    """A query (dim,), the rows (k,) that the index found, and a random number: the sample has the lowest ones."""

    lot: float
    query: np.ndarray
    rows: Ints


class QuerySample:
    """A uniform sample of the queries of all searches, with the rows that they found."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self._rng = size, rng
        self._searched: list[_Searched] = []

    def add(self, queries: np.ndarray, rows: Ints) -> None:
        """Draw among the queries (queries, dim) of a search that found rows (queries, k), and those before."""
        lots = self._rng.random(len(queries))
        few = np.argsort(lots, kind="stable")[: self.size]
        drawn = [_Searched(float(lots[one]), queries[one].copy(), rows[one].copy()) for one in few]
        self._searched = sorted(self._searched + drawn, key=lambda one: one.lot)[: self.size]

    def __len__(self) -> int:
        return len(self._searched)

    def recall(self, exact: Search) -> float:
        """Return the share of the rows of an exact search that were found, mean over the sample.

        `exact` returns distances and rows (queries, k) of the k nearest.
        """
        by_depth: dict[int, list[_Searched]] = defaultdict(list)
        for one in self._searched:
            by_depth[len(one.rows)].append(one)
        shares = []
        for k, searched in by_depth.items():
            _, expected = exact(np.stack([one.query for one in searched]), k)
            shares += [np.isin(rows, one.rows).mean() for rows, one in zip(expected, searched, strict=True)]
        return float(np.mean(shares))
