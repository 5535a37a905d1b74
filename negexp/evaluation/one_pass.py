"""All tasks, protocols and stages of a block of queries in one pass over the candidates.

Small groups are scored pair by pair, large ones tile by tile. Both happen once for all tasks and both protocols.
"""

from __future__ import annotations

import numpy as np
import torch

from negexp.corpus.arguments import Ints, Split
from negexp.evaluation.block import Block, GroupedBlock, RankedCell
from negexp.evaluation.candidates import Candidates
from negexp.evaluation.grouping import Grouping
from negexp.evaluation.pools import Cell
from negexp.evaluation.scores import Floats, Scorer
from negexp.evaluation.tile_pass import TilePass
from negexp.evaluation.tiles import TILE, GroupTiles, LargeGroups, TileOrder

SMALL = 64  # a group with at most so many columns is scored pair by pair
MOST_QUERIES = 2**9  # in a block: larger blocks are not faster
SCORE_BYTES = 16  # memory for a score of a tile, and for what it is compared with
ENTRY_BYTES = 128  # memory for a scored pair, with what is computed from it

GroupingKey = tuple[str, bool]


class OnePass:
    """Ranks of the queries of a split in the given tasks and protocols.

    The ranks of a query do not depend on the other queries of its block.

    Parameters
    ----------
    k
        Number of nearest candidates; None: all of them.
    """

    def __init__(self, split: Split, scorer: Scorer, cells: list[Cell], k: int | None) -> None:
        self.candidates, self.scorer, self.cells = Candidates.of(split), scorer, cells
        self.order = TileOrder(self.candidates)
        self.k = len(self.candidates) if k is None else min(k, len(self.candidates))
        self.small = len(self.candidates) if k is None else SMALL
        keys = dict.fromkeys(cell.task.grouping for cell in cells)
        self.groupings = {key: Grouping.of(self.candidates, *key) for key in keys}
        self.tiles: dict[GroupingKey, dict[int, GroupTiles]] = {key: {} for key in keys}

    def queries_at_a_time(self, block_bytes: int) -> int:
        """Return the size of a block."""
        sizes = [one.size[one.size <= self.small].max(initial=0) for one in self.groupings.values()]
        entries = int(sum(sizes)) + 8 * len(sizes) * self.k
        query_bytes = SCORE_BYTES * min(TILE, len(self.candidates)) + ENTRY_BYTES * entries
        return max(1, min(MOST_QUERIES, block_bytes // query_bytes))

    @torch.inference_mode()
    def rank(self, rows: Ints) -> list[RankedCell]:
        """Return the ranks of some queries in every task and protocol."""
        block = Block(self.candidates, rows, self.scorer)
        keep = self.k + self.candidates.itself(rows).shape[1]  # a list lacks the query itself
        grouped = {key: GroupedBlock(block, one, self.small, keep) for key, one in self.groupings.items()}
        golds = [grouped[cell.task.grouping].pool_golds(cell.points, cell.clean) for cell in self.cells]
        bounds = _distinct([one.bound for one in golds])
        large = [own.large_groups(self.tiles[key], self.order) for key, own in grouped.items()]
        self._pass_tiles(block, list(grouped.values()), [own for own in large if own is not None], bounds)
        return [
            grouped[cell.task.grouping].rank(own, cell.points, cell.clean, bounds, self.k)
            for cell, own in zip(self.cells, golds, strict=True)
        ]

    def _pass_tiles(self, block: Block, grouped: list[GroupedBlock], large: list[LargeGroups], bounds: Floats) -> None:
        """Score large groups: count what is above the bounds, and collect the nearest."""
        if not large:
            return
        query, column = (
            np.concatenate([getattr(own, f"gold_{name}") for own in grouped]) for name in ("query", "column")
        )
        tiles = TilePass(
            self.order, self.scorer.tiles(block.text), block.exact, bounds, (query, column), grouped[0].keep
        )
        tiles.run(self.candidates.text, large)
        for own in grouped:
            own.settle()


def _distinct(bounds: list[Floats]) -> Floats:
    """Return the finite bounds (queries, any number) of each query, each once; the last one fills the rows.

    >>> _distinct([np.array([[3.0, 1.0], [2.0, 2.0]]), np.array([[1.0, -np.inf], [2.0, 2.0]])]).tolist()
    [[1.0, 3.0], [2.0, 2.0]]
    """
    every = np.sort(np.concatenate(bounds, axis=1), axis=1)  # -inf first
    new = np.isfinite(every)
    new[:, 1:] &= every[:, 1:] != every[:, :-1]
    width = max(1, int(new.sum(axis=1).max(initial=0)))
    result = np.repeat(np.where(new.any(axis=1, keepdims=True), every[:, -1:], 0.0), width, axis=1)
    query, column = np.nonzero(new)
    result[query, new.cumsum(axis=1)[query, column] - 1] = every[query, column]
    return result
