"""Scores of queries and candidates: fast ones of tiles with a bound on their error, exact ones of single pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.corpus.arguments import Ints
from negexp.index.base import check_finite
from negexp.index.rounding import EQUAL_NORMS, ROUNDING, SAFETY, full_precision, rounding_error, score_error
from negexp.scratch import scratch

Floats = NDArray[np.float64]

PAIR_BYTES = 2**20  # size of a block of differences, small enough for the processor's cache
MATRIX_SCORES = 2**20  # scores that a function computes at a time for single pairs


class Tiles(Protocol):
    """The scores of a block of queries, tile by tile, on a scale of their own.

    error: (queries,) by how much such a score can be wrong. It is 0 where they are exact.
    """

    error: Tensor

    def scores(self, candidate: Ints) -> Tensor:
        """Return the scores (queries, columns) of candidates. The next call may overwrite them."""

    def rescaled(self, scores: Floats) -> Tensor:
        """Return exact scores (queries, any number) on the scale of the tiles, in float64."""


class Scorer(Protocol):
    """Scores texts, given as rows of `Corpus.texts`. A higher score is better."""

    def tiles(self, query: Ints) -> Tiles:
        """Return the scores of some queries, for whole tiles of candidates."""

    def pairs(self, query: Ints, candidate: Ints) -> Floats:
        """Return the exact score (pairs,) of each query's own candidate; the same bits in any company."""


class MatrixScorer:
    """Scores from a function of queries and candidates that is exact, as BM25: -> (queries, candidates), float64."""

    def __init__(self, function: Callable[[Ints, Ints], Floats]) -> None:
        self.function = function

    def tiles(self, query: Ints) -> Tiles:
        """Return the function's scores."""
        return _MatrixTiles(self.function, query)

    def pairs(self, query: Ints, candidate: Ints) -> Floats:
        """Return the scores of pairs, from matrices of the distinct queries and candidates."""
        queries, row = np.unique(query, return_inverse=True)
        candidates, column = np.unique(candidate, return_inverse=True)
        order, found = np.argsort(column, kind="stable"), np.empty(len(query))
        width = max(1, MATRIX_SCORES // max(1, len(queries)))
        for start in range(0, len(candidates), width):
            bounds = np.searchsorted(column[order], (start, start + width))
            some = order[slice(*bounds)]
            found[some] = self.function(queries, candidates[start : start + width])[row[some], column[some] - start]
        return found


class _MatrixTiles:
    def __init__(self, function: Callable[[Ints, Ints], Floats], query: Ints) -> None:
        self.function, self.query = function, query
        self.error = torch.zeros(len(query), dtype=torch.float64)

    def scores(self, candidate: Ints) -> Tensor:
        return torch.from_numpy(np.array(self.function(self.query, candidate), dtype=np.float64))

    def rescaled(self, scores: Floats) -> Tensor:
        return torch.from_numpy(scores)


class DistanceScorer:
    """Minus the squared Euclidean distance of embeddings.

    Tiles have products in float32: q.x - |x|^2 / 2, or q.x alone where all |x| are equal. Pairs have the squares of the
    differences in float64, so equal vectors have equal scores.

    Parameters
    ----------
    queries, candidates
        The vectors (rows, dim) in both roles, float32 or float64, on the device that computes the tiles.
    row
        (texts of the corpus,) the row of each text among the candidates.
    query_row
        The same among the queries; None: as `row`.

    Raises
    ------
    InputError
        When a vector is not finite.
    """

    def __init__(self, queries: Tensor, candidates: Tensor, row: Ints, query_row: Ints | None = None) -> None:
        self.queries, self.candidates = queries, candidates
        self.row, self.query_row = row, row if query_row is None else query_row
        for vectors in (queries, candidates):
            check_finite(vectors.cpu().numpy())
        norms = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in candidates.split(2**13)])
        self.longest, shortest = float(norms.max()), float(norms.min())
        self.rounded = candidates.float()  # float32 vectors are not copied
        self.vector_error = rounding_error(candidates.cpu(), self.rounded)
        equal = self.longest - shortest <= EQUAL_NORMS[torch.float32] * self.longest
        self.half_squares = None if equal else (norms**2 / 2).float()
        self.half_square = (self.longest**2 + shortest**2) / 4 if equal else 0.0  # in the middle of all |x|^2 / 2
        self.spread = (self.longest**2 - shortest**2) / 4 if equal else 0.0  # their distance from the middle, at most

    def tiles(self, query: Ints) -> Tiles:
        """Return float32 scores with the bound on their error."""
        return _ProductTiles(self, self.queries[self._rows(query, self.query_row)])

    def pairs(self, query: Ints, candidate: Ints) -> Floats:
        """Return minus the squared distance of each pair, from differences in float64."""
        found = np.empty(len(query))
        block = max(1, PAIR_BYTES // (8 * max(1, self.queries.shape[1])))
        for start in range(0, len(query), block):
            some = slice(start, start + block)
            own = self.queries.index_select(0, self._rows(query[some], self.query_row)).double()
            other = self.candidates.index_select(0, self._rows(candidate[some], self.row)).double()
            difference = own.sub_(other).cpu().numpy()
            found[some] = -np.einsum("ij,ij->i", difference, difference)
        return found

    def _rows(self, text: Ints, row: Ints) -> Tensor:
        return torch.from_numpy(row[text]).to(self.queries.device)


class _ProductTiles:
    def __init__(self, scorer: DistanceScorer, queries: Tensor) -> None:
        self.scorer, self.rounded = scorer, queries.float()
        self.squares = queries.double().square().sum(dim=1).cpu()
        error = score_error(queries.cpu(), self.rounded, scorer.longest, scorer.vector_error)
        self.error = error + SAFETY * scorer.spread

    def scores(self, candidate: Ints) -> Tensor:
        scorer, rows = self.scorer, self.scorer._rows(candidate, self.scorer.row)
        shape, device = (len(rows), self.rounded.shape[1]), self.rounded.device
        tile = scratch("evaluation tile", shape, torch.float32, device)
        torch.index_select(scorer.rounded, 0, rows, out=tile)
        scores = scratch("evaluation products", (len(self.rounded), len(rows)), torch.float32, device)
        with full_precision(device):
            if scorer.half_squares is None:
                return torch.mm(self.rounded, tile.T, out=scores)
            return torch.addmm(scorer.half_squares[rows], self.rounded, tile.T, beta=-1, out=scores)

    def rescaled(self, scores: Floats) -> Tensor:
        return (torch.from_numpy(scores) + self.squares[:, None]) / 2 + self.scorer.half_square


def outside(tiles: Tiles, scores: Floats, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the numbers (queries, any number) between which a tile's score says nothing about the exact score.

    A score above the higher number is above the exact score, one not above the lower number is not.
    """
    middle = tiles.rescaled(scores)
    if dtype == torch.float64:
        return middle, middle
    low, high = middle - tiles.error[:, None], middle + tiles.error[:, None]
    low, high = low - ROUNDING[dtype] * low.abs(), high + ROUNDING[dtype] * high.abs()
    return low.to(dtype), high.to(dtype)
