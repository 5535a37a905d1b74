"""Exact search by blocks of the full distance matrix, in torch, on the GPU where there is one.

A vector x is the nearer to q, the larger its score q.x - |x|^2 / 2 is. Scores are computed in bfloat16 where the
processor is fast at it, else in float32. The k-th best score so far, less a bound on what rounding can do, is what a
score must reach for its vector to be a candidate; the base class compares candidates anew, in float64. So the result is
exact whatever was rounded away; where bfloat16 leaves too many candidates, scores are computed again in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from negexp.config import IndexConfig
from negexp.index.base import Candidates, NeighbourIndex
from negexp.processor import fast_bfloat16
from negexp.scratch import scratch

TILE = 2**13  # columns whose scores exist at a time
CHUNK = 16  # columns of which only the best score is looked at first; a divisor of TILE
MOST_QUERIES, MOST_SCORES = 2**10, 2**21  # at a time: more are no faster, and take more memory
ROOM = 16  # candidates there is room for, for each of the k: about k come from the first tile, few from later ones
ROUNDING = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}  # of one operation, relative; twice what it can be
ONE_LENGTH = {torch.float32: 1e-6, torch.bfloat16: 1e-4}  # spread of norms, relative, that may be taken for none
SAFETY = 1.02  # the bounds themselves are computed with rounding
ROWS = 2**11  # that are converted at a time


@dataclass(frozen=True)
class Table:
    """The vectors (n, dim) in one precision, and how far scores may be from true ones for their sake.

    lost: the largest distance of a vector from what it was before rounding. half_squares: (n,), None where norms are so
    nearly equal that products alone give the order; spread: by how much at most |x|^2 / 2 differs then, else 0.
    """

    vectors: Tensor
    lost: float
    half_squares: Tensor | None
    spread: float

    def scores(self, queries: Tensor, start: int) -> Tensor:
        """Return the scores of a tile of columns (queries, CHUNK, chunks), -inf where there is no column.

        A chunk is every `chunks`-th column of the tile: so the best of all chunks is found by whole rows. The
        next scores take the place of these.
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
    """Brute force in matrix products; beside the vectors it holds them in bfloat16, and a tile of scores.

    Norms, of queries too, must be below 1e18, so that their products are numbers in float32.
    """

    @classmethod
    def from_options(cls, options: IndexConfig, vectors: np.ndarray, device: torch.device, threads: int) -> Self:
        """Return an index that computes on the device."""
        return cls(vectors, options.block_bytes, device)

    def __init__(self, vectors: np.ndarray, block_bytes: int, device: torch.device) -> None:
        super().__init__(vectors, block_bytes)
        self._columns = min(TILE, len(self.vectors) + CHUNK)  # of a tile of scores
        exact = torch.from_numpy(self.vectors)
        norms = torch.from_numpy(np.sqrt(np.einsum("ij,ij->i", self.vectors, self.vectors, dtype=np.float64)))
        self.longest, shortest = float(norms.max()), float(norms.min())

        def one_length(dtype: torch.dtype) -> bool:
            return self.longest - shortest <= ONE_LENGTH[dtype] * self.longest

        def table(vectors: Tensor) -> Table:
            lost = _lost(exact, vectors)
            if one_length(vectors.dtype):
                return Table(vectors, lost, None, (self.longest**2 - shortest**2) / 2)
            return Table(vectors, lost, (norms**2 / 2).to(device, vectors.dtype), 0.0)

        self.tables = [table(exact.float().to(device))]  # on a CPU float32 vectors are not copied
        if device.type == "cpu" and fast_bfloat16() and one_length(torch.bfloat16):  # squares would be rounded away
            self.tables.insert(0, table(exact.bfloat16()))

    def _queries_at_a_time(self, k: int) -> int:
        most_scores = min(MOST_SCORES, self.block_bytes // 4)
        return min(MOST_QUERIES, most_scores // self._columns, self.most_candidates // (ROOM * k))

    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        looks = (self._look(table, torch.from_numpy(queries), k) for table in self.tables)
        return next((found for found in looks if found is not None), None)

    @torch.inference_mode()
    def _look(self, table: Table, exact: Tensor, k: int) -> Candidates | None:
        """Return the candidates that scores in a table's precision leave."""
        queries = exact.to(table.vectors.device, table.vectors.dtype)
        margin = self._margin(table, exact, queries).to(queries.device, torch.float32)
        best = torch.full((len(queries), k), -torch.inf, device=queries.device)
        found: list[tuple[Tensor, Tensor, Tensor]] = []  # query, column and score
        candidates = 0
        for start in range(0, len(table.vectors), TILE):
            with _full_precision(queries.device):
                scores = table.scores(queries, start)
            chunk_best = scores.amax(dim=1)
            # the best of enough chunks are nearly the best of all columns, and never better
            good = chunk_best if chunk_best.shape[1] >= 4 * k else scores.flatten(1)
            good = good.topk(min(k, good.shape[1]), dim=1).values.float()
            best = torch.cat([best, good], dim=1).topk(k, dim=1).values
            lowest = _rounded_down(best[:, -1] - margin, queries.dtype)
            query, chunk = (chunk_best >= lowest[:, None]).nonzero(as_tuple=True)
            members = scores[query, :, chunk]  # (chunks found, CHUNK)
            hit, member = (members >= lowest[query, None]).nonzero(as_tuple=True)
            column = start + chunk[hit] + member * chunk_best.shape[1]
            found.append((query[hit], column, members[hit, member]))
            candidates += len(hit)
            if candidates > self.most_candidates and (len(queries) > 1 or table is not self.tables[-1]):
                return None
        query, column, score = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = score >= lowest[query]  # what the last tile asked for is the most: it only rises
        query, order = query[kept].sort(stable=True)
        return Candidates(query.cpu().numpy(), column[kept][order].cpu().numpy())

    def _margin(self, table: Table, exact: Tensor, queries: Tensor) -> Tensor:
        """Return (queries,) how much lower than the k-th best score one of the k nearest may have.

        Scores err by the rounding of vectors, queries, sums and results, by underflow where numbers are tiny, and the
        distances that they stand for by rounding in float64; two of them are compared.
        """
        norms = torch.linalg.vector_norm(exact.double(), dim=1)
        rounded = torch.linalg.vector_norm(exact.double() - queries.cpu().double(), dim=1)
        factors = rounded * self.longest + norms * table.lost
        sums = (exact.shape[1] + 4) * ROUNDING[torch.float32] * (norms * self.longest + self.longest**2)
        results = ROUNDING[queries.dtype] * norms * self.longest
        rest = exact.shape[1] * (2.0**-126 * (1 + norms + self.longest) + 2.0**-52 * (norms + self.longest) ** 2)
        margin: Tensor = 2 * SAFETY * (factors + sums + results + rest) + SAFETY * table.spread
        return margin.clamp(max=torch.finfo(torch.float32).max / 4)  # then every vector is a candidate


def _rounded_down(values: Tensor, dtype: torch.dtype) -> Tensor:
    return (values - ROUNDING[dtype] * values.abs()).to(dtype)


def _lost(exact: Tensor, rounded: Tensor) -> float:
    """Return the largest distance of a vector from itself after rounding."""
    if rounded.dtype == exact.dtype:
        return 0.0
    parts = zip(exact.split(ROWS), rounded.split(ROWS), strict=True)
    return max(float(torch.linalg.vector_norm(a.double() - b.cpu().double(), dim=1).max()) for a, b in parts)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep a GPU, and autocast, from rounding the factors of float32 products."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
