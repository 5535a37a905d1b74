"""Exact search by blocks of the full distance matrix, in torch, on the GPU where there is one.

A vector x is the nearer to q, the larger its score q.x - |x|^2 / 2 is. A first look computes all scores, in bfloat16
where the processor is fast at it, and keeps the best of every few columns. What could be among the nearest, given a
bound on the rounding, is computed again in float32, and what still could be, by the base class in float64. So the
result is exact whatever the first look rounds away; where the bound leaves too much open, the base class asks for more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from negexp.index.base import Candidates, NeighbourIndex
from negexp.processor import fast_bfloat16

TILE = 4096  # columns whose scores exist at a time: few enough to stay in the processor's cache
CHUNK = 8  # columns of which the first look keeps the best score
MOST_QUERIES = 128  # at a time: more are no faster, and take more memory
ROUNDING = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}  # of one operation, relative; twice what it can be
SAFETY = 1.02  # the bounds themselves are computed with rounding
ONE_LENGTH = 1e-4  # relative spread of norms below which they are taken for equal in the first look


class ExactIndex(NeighbourIndex):
    """Brute force in matrix products; beside the vectors it holds them in bfloat16, and `block_bytes` of scores."""

    slack = 3

    def __init__(self, vectors: np.ndarray, block_bytes: int, device: torch.device) -> None:
        super().__init__(vectors, block_bytes)
        exact = torch.from_numpy(self.vectors)
        norms = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in exact.split(TILE)])
        self.longest, self.shortest = float(norms.max()), float(norms.min())
        self.table = exact.float().to(device)  # (vectors, dim); on a CPU float32 vectors are not copied
        self.half_squares = (norms**2 / 2).float().to(device)  # (vectors,)
        # the products alone give the order then, up to the spread, and need not be more precise than that
        self.one_length = self.longest - self.shortest <= ONE_LENGTH * self.longest
        coarse = device.type == "cpu" and self.one_length and fast_bfloat16()
        self.looked_at = self.table.bfloat16() if coarse else self.table
        self.lost = _lost(exact, self.table), _lost(exact, self.looked_at)
        self.chunks = sum(len(tile) // CHUNK for tile in self.table.split(TILE))

    def _block(self, k: int, width: int) -> int:
        columns, dim = self.table.shape
        again = columns if width >= self.chunks else width * CHUNK * (dim + 4)
        return max(1, min(MOST_QUERIES, self.block_bytes // (4 * (2 * TILE + columns // CHUNK + again))))

    @torch.inference_mode()
    def _nearest(self, queries: np.ndarray, k: int, width: int) -> Candidates:
        exact = torch.from_numpy(queries)
        asked = exact.float().to(self.table.device)
        squares = (exact.double() ** 2).sum(dim=1)
        with _full_precision(asked.device):
            if width >= self.chunks:
                columns = torch.arange(len(self.table), device=asked.device).expand(len(asked), -1)
                scores = torch.addmm(self.half_squares, asked, self.table.T, beta=-1)
                beyond = torch.full_like(squares, torch.inf)
            else:
                rounded = asked.to(self.looked_at.dtype)
                columns, best_left = self._look(rounded, width)
                found = self.table.index_select(0, columns.flatten()).view(*columns.shape, -1)
                scores = found.mul_(asked[:, None]).sum(dim=2) - self.half_squares.take(columns)
                beyond = squares * (1 - 1e-12) - 2 * (best_left + self._error(exact, rounded, self.lost[1]))
        # the k-th best is at least what its score says less the error; what may be above that may be nearer
        kth = scores.topk(k, dim=1).values[:, -1].double().cpu()
        lowest = (kth - 2 * self._error(exact, asked, self.lost[0]))[:, None].to(scores.device, scores.dtype)
        query, place = (scores >= torch.nextafter(lowest, torch.full_like(lowest, -torch.inf))).nonzero(as_tuple=True)
        return Candidates(query.cpu().numpy(), columns[query, place].cpu().numpy(), beyond.numpy())

    def _look(self, rounded: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Return the columns (queries, at least width) of the best chunks, and the best score (queries,) left out.

        A chunk is every `len(tile) // CHUNK`-th column of a tile; the few columns that fill no chunk are always taken.
        """
        best, first, step, rest = [], [], [], []
        for start in range(0, len(self.table), TILE):
            tile = self.looked_at[start : start + TILE]
            chunks = len(tile) // CHUNK
            scores = rounded @ tile.T
            if not self.one_length:
                scores -= self.half_squares[start : start + TILE]
            best.append(scores[:, : chunks * CHUNK].unflatten(1, (CHUNK, chunks)).amax(dim=1))
            first.append(start + torch.arange(chunks))
            step.append(torch.full((chunks,), chunks))
            rest.append(start + torch.arange(chunks * CHUNK, len(tile)))
        top = torch.cat(best, dim=1).float().topk(width + 1, dim=1)
        chosen = top.indices[:, :-1].cpu()
        columns = torch.cat(first)[chosen][:, :, None] + torch.cat(step)[chosen][:, :, None] * torch.arange(CHUNK)
        always = torch.cat(rest).expand(len(rounded), -1)
        left = top.values[:, -1].double().cpu() - (self.shortest**2 / 2 if self.one_length else 0.0)
        return torch.cat([columns.flatten(1), always], dim=1).to(rounded.device), left

    def _error(self, exact: Tensor, rounded: Tensor, lost: float) -> Tensor:
        """Return (queries,) how far a score can be from the true one, by rounding of factors, sum and result.

        `lost` is what vectors lost by rounding; a result is rounded as the factors were.
        """
        norms = torch.linalg.vector_norm(exact, dim=1).double()
        unrounded = rounded.cpu().to(exact.dtype)  # no digit is lost
        factors = torch.linalg.vector_norm(exact - unrounded, dim=1).double() * self.longest + norms * lost
        sums = (exact.shape[1] + 4) * ROUNDING[torch.float32] * (norms * self.longest + self.longest**2)
        error: Tensor = SAFETY * (factors + sums + ROUNDING[rounded.dtype] * norms * self.longest)
        return error


def _lost(exact: Tensor, rounded: Tensor) -> float:
    """Return the largest distance of a vector from itself after rounding."""
    if rounded.dtype == exact.dtype:
        return 0.0
    parts = zip(exact.split(TILE), rounded.cpu().split(TILE), strict=True)
    return max(float(torch.linalg.vector_norm(a.double() - b.double(), dim=1).max()) for a, b in parts)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep a GPU from rounding the factors of float32 products."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
