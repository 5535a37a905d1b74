"""Exact search by blocks of the full distance matrix, in torch, on the GPU if there is one.

The nearest vector x to q has the largest score q.x - |x|^2 / 2. Scores are computed in bfloat16 if the processor is
fast at it, else in float32. A vector is a candidate if its score reaches the k-th best score so far, minus a bound on
the rounding error. The base class compares the candidates in float64, so the result is exact. If bfloat16 leaves too
many candidates, the scores are computed again in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from negexp.config import IndexConfig
from negexp.index.base import Candidates, NeighbourIndex
from negexp.index.rounding import EQUAL_NORMS, ROUNDING, SAFETY, full_precision, rounding_error, score_error
from negexp.processor import fast_bfloat16
from negexp.scratch import scratch

TILE = 2**13  # columns of a block of scores
CHUNK = 16  # columns whose best score is compared first; a divisor of TILE
MOST_QUERIES, MOST_SCORES = 2**10, 2**21  # in a block: larger blocks are not faster, and take more memory
ROOM = 16  # expected candidates per neighbour, at most: about k come from the first tile, few from later ones


@dataclass(frozen=True)
class RoundedVectors:
    """The vectors (n, dim) in one precision, with bounds on the error of their scores.

    rounding_error: the largest distance between a vector and its rounded copy.
    half_squares: (n,) |x|^2 / 2, or None if the norms are so close that the products alone give the order.
    spread: without `half_squares`, the largest difference between two |x|^2 / 2; else 0.
    """

    vectors: Tensor
    rounding_error: float
    half_squares: Tensor | None
    spread: float

    def scores(self, queries: Tensor, start: int) -> Tensor:
        """Return the scores of a tile of columns (queries, CHUNK, chunks), -inf beyond the last column.

        A chunk holds every `chunks`-th column of the tile, so that the maximum over chunks reads whole rows. The next
        call overwrites the result.
        """
        tile = self.vectors[start : start + TILE]
        width = len(tile) + -len(tile) % CHUNK
        scores = scratch("index scores", (len(queries), width), queries.dtype, queries.device)
        scores[:, len(tile) :] = -torch.inf
        if self.half_squares is None:
            torch.mm(queries, tile.T, out=scores[:, : len(tile)])
        else:
            squares = self.half_squares[start : start + TILE]
            torch.addmm(squares, queries, tile.T, beta=-1, out=scores[:, : len(tile)])
        chunks: Tensor = scores.unflatten(1, (CHUNK, -1))
        return chunks


class ExactIndex(NeighbourIndex):
    """Brute force with matrix products. In memory: the vectors, a bfloat16 copy of them, and a tile of scores.

    Norms of vectors and queries must be below 1e18, so that products do not overflow float32.
    """

    @classmethod
    def from_options(cls, options: IndexConfig, vectors: np.ndarray, device: torch.device, threads: int) -> Self:
        """Return an index that computes on the device."""
        return cls(vectors, options.block_bytes, device)

    def __init__(self, vectors: np.ndarray, block_bytes: int, device: torch.device) -> None:
        super().__init__(vectors, block_bytes)
        self._columns = min(TILE, len(self.vectors) + CHUNK)  # in a tile of scores
        exact = torch.from_numpy(self.vectors)
        norms = torch.from_numpy(np.sqrt(np.einsum("ij,ij->i", self.vectors, self.vectors, dtype=np.float64)))
        self.longest, shortest = float(norms.max()), float(norms.min())

        def equal_norms(dtype: torch.dtype) -> bool:
            return self.longest - shortest <= EQUAL_NORMS[dtype] * self.longest

        def with_bounds(vectors: Tensor) -> RoundedVectors:
            error = rounding_error(exact, vectors)
            if equal_norms(vectors.dtype):
                return RoundedVectors(vectors, error, None, (self.longest**2 - shortest**2) / 2)
            return RoundedVectors(vectors, error, (norms**2 / 2).to(device, vectors.dtype), 0.0)

        self.precisions = [with_bounds(exact.float().to(device))]  # on a CPU this does not copy float32 vectors
        # with unequal norms, scores need |x|^2 / 2, for which bfloat16 has too few bits
        if device.type == "cpu" and fast_bfloat16() and equal_norms(torch.bfloat16):
            self.precisions.insert(0, with_bounds(exact.bfloat16()))

    def _queries_at_a_time(self, k: int) -> int:
        most_scores = min(MOST_SCORES, self.block_bytes // 4)
        return min(MOST_QUERIES, most_scores // self._columns, self.most_candidates // (ROOM * k))

    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        attempts = (self._candidates_in(rounded, torch.from_numpy(queries), k) for rounded in self.precisions)
        return next((candidates for candidates in attempts if candidates is not None), None)

    @torch.inference_mode()
    def _candidates_in(self, rounded: RoundedVectors, exact: Tensor, k: int) -> Candidates | None:
        """Return the candidates by scores in one precision, None if there are too many."""
        queries = exact.to(rounded.vectors.device, rounded.vectors.dtype)
        margin = self._margin(rounded, exact, queries).to(queries.device, torch.float32)
        best = torch.full((len(queries), k), -torch.inf, device=queries.device)
        found: list[tuple[Tensor, Tensor, Tensor]] = []  # query, column and score
        candidates = 0
        for start in range(0, len(rounded.vectors), TILE):
            with full_precision(queries.device):
                scores = rounded.scores(queries, start)
            chunk_best = scores.amax(dim=1)
            # the best scores of many chunks are nearly the best scores of all columns, and never above them
            good = chunk_best if chunk_best.shape[1] >= 4 * k else scores.flatten(1)
            good = good.topk(min(k, good.shape[1]), dim=1).values.float()
            best = torch.cat([best, good], dim=1).topk(k, dim=1).values
            lowest = _rounded_down(best[:, -1] - margin, queries.dtype)
            query, chunk = (chunk_best >= lowest[:, None]).nonzero(as_tuple=True)
            members = scores[query, :, chunk]  # (chunks, CHUNK)
            hit, member = (members >= lowest[query, None]).nonzero(as_tuple=True)
            column = start + chunk[hit] + member * chunk_best.shape[1]
            found.append((query[hit], column, members[hit, member]))
            candidates += len(hit)
            if candidates > self.most_candidates and (len(queries) > 1 or rounded is not self.precisions[-1]):
                return None
        query, column, score = (torch.cat(parts) for parts in zip(*found, strict=True))
        high = score >= lowest[query]  # the threshold rises from tile to tile; apply the last one to all
        query, order = query[high].sort(stable=True)
        return Candidates(query.cpu().numpy(), column[high][order].cpu().numpy())

    def _margin(self, rounded: RoundedVectors, exact: Tensor, queries: Tensor) -> Tensor:
        """Return (queries,) by how much the score of a k-nearest vector can be below the k-th best score.

        A comparison has two scores, so the bound on the error of a score counts twice.
        """
        error = score_error(exact, queries, self.longest, rounded.rounding_error)
        margin: Tensor = 2 * error + SAFETY * rounded.spread
        return margin.clamp(max=torch.finfo(torch.float32).max / 4)  # with this margin every vector is a candidate


def _rounded_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    return (values - ROUNDING[dtype] * values.abs()).to(dtype)
