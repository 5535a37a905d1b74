"""Count the columns of a tile above each query's bounds.

Golds of a good model stand near the top: few columns reach the lowest bound. They are collected and compared one by
one. If there are too many, whole tiles are compared with each bound. Both ways give the same counts.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.corpus.arguments import Ints
from negexp.evaluation.scored_tile import ScoredTile, within
from negexp.evaluation.tiles import GroupInTile
from negexp.scratch import scratch

MOST_REACHED = 0.25  # share of chunks that reach a bound, from which comparing all scores is faster
CHUNK = 128  # columns whose counts are compared first

Hits = tuple[Ints, Ints, NDArray[np.floating]]  # query, column of the tile, score


class Counter:
    """Counts by fast scores, as far as their error allows.

    low, high (queries, bounds): numbers around each bound, ascending. A score above `high` is surely above the bound,
    one not above `low` surely is not. Between them, the comparison is open: exact scores must decide.
    """

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self.low, self.high = low, high
        self.exact = low.dtype == torch.float64  # then both are equal
        self._low, self._high = low.cpu().numpy(), high.cpu().numpy()
        self._open: list[tuple[Ints, Ints, Ints]] = []
        self.waiting = 0  # open comparisons

    def count(self, tile: ScoredTile, groups: list[GroupInTile], start: int, points: bool) -> None:
        """Add what is surely above each bound to the groups' counts; note the open comparisons.

        `start` is the position of the tile's first column; `points` says whether its columns are points.
        """
        reached = tile.best > self.low[:, :1]
        if int(reached.sum()) > MOST_REACHED * reached.numel():
            self._count_all(tile.scores, groups, start, points)
        else:
            query, column, score = tile.in_chunks(reached, self.low[:, :1], equal=False)
            self._count_hits((query.cpu().numpy(), column.cpu().numpy(), score.cpu().numpy()), groups, start, points)

    def take_open(self) -> tuple[Ints, Ints, Ints]:
        """Return query, bound and position of the open comparisons, and forget them."""
        query, bound, position = (np.concatenate(parts) for parts in zip(*self._open, strict=True))
        self._open, self.waiting = [], 0
        return query, bound, position

    def _count_hits(self, hits: Hits, groups: list[GroupInTile], start: int, points: bool) -> None:
        query, column, score = hits
        memberships = [group.membership(query, column) for group in groups]
        for bound in range(self.low.shape[1]):
            surely = score > self._high[query, bound]
            if not self.exact:
                maybe = ~surely & (score > self._low[query, bound])
                self._note(query[maybe], bound, start + column[maybe])
            for group, (member, first) in zip(groups, memberships, strict=True):
                for clean, counted in enumerate((member & surely, first & surely)):
                    above = group.own.above[int(points), clean, :, bound]
                    above += np.bincount(query[counted], minlength=len(above))

    def _count_all(self, scores: Tensor, groups: list[GroupInTile], start: int, points: bool) -> None:
        for bound in range(self.low.shape[1]):
            surely = self._compare(scores, bound, start)
            for group in groups:
                total = _total(surely, group.rows, group.columns)
                counts = group.own.above[int(points), :, group.rows, bound]  # (rows, 2)
                first = group.columns[group.first]
                clean = total if len(first) == len(group.columns) else _total(surely, group.rows, first)
                group.own.above[int(points), :, group.rows, bound] = counts + np.stack([total, clean], axis=1)

    def _compare(self, scores: Tensor, bound: int, start: int) -> Tensor:
        """Return 1 where a score is surely above the bound, else 0 (queries, columns); note the open comparisons."""
        queries, width = scores.shape
        padded = width + -width % CHUNK
        surely, maybe = (
            scratch(f"evaluation {name}", (queries, padded), scores.dtype, scores.device) for name in ("above", "maybe")
        )
        surely[:, width:] = 0
        torch.gt(scores, self.high[:, bound, None], out=surely[:, :width])
        if not self.exact:
            maybe[:, width:] = 0
            torch.gt(scores, self.low[:, bound, None], out=maybe[:, :width])
            counts = [part.view(queries, -1, CHUNK).sum(dim=2) for part in (surely, maybe)]
            query, chunk = (counts[0] != counts[1]).nonzero(as_tuple=True)
            column = chunk[:, None] * CHUNK + torch.arange(CHUNK, device=scores.device)
            hit, member = (maybe[query[:, None], column] != surely[query[:, None], column]).nonzero(as_tuple=True)
            self._note(query[hit].cpu().numpy(), bound, start + column[hit, member].cpu().numpy())
        return surely[:, :width]

    def _note(self, query: Ints, bound: int, position: Ints) -> None:
        self._open.append((query, np.full(len(query), bound), position))
        self.waiting += len(query)


def _total(above: Tensor, rows: Ints, columns: Ints) -> Ints:
    """Return the sum (rows,) of some columns."""
    if not len(columns):
        return np.zeros(len(rows), dtype=np.int64)
    total: Ints = within(above, rows, columns).sum(dim=1).long().cpu().numpy()
    return total
