"""One pass over the scores of a block of queries, tile by tile, for all tasks and protocols.

A tile's scores are wrong by up to a bound. Those that are surely above a query's gold are only counted. Where the bound
leaves it open, the exact score of the pair decides. Columns that may be among the nearest are collected.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from negexp.corpus.arguments import Ints
from negexp.evaluation.counting import Counter
from negexp.evaluation.scored_tile import ScoredTile
from negexp.evaluation.scores import Floats, Tiles, outside
from negexp.evaluation.tiles import GroupInTile, LargeGroups, TileOrder
from negexp.index.rounding import ROUNDING
from negexp.signals import check_stop

MOST_OPEN = 2**20  # comparisons that wait for their exact scores

Exact = Callable[[Ints, Ints], Floats]  # queries of the block, columns -> exact scores (pairs,)


class TilePass:
    """One pass over the tiles for a block of queries.

    Parameters
    ----------
    bounds
        (queries, any number) the exact scores with which columns are compared, ascending.
    golds
        Query and column of each gold and its copies; they are neither counted nor collected.
    keep
        So many of the nearest are collected at least; 0: none are.
    """

    def __init__(
        self, order: TileOrder, tiles: Tiles, exact: Exact, bounds: Floats, golds: tuple[Ints, Ints], keep: int
    ) -> None:
        self.order, self.tiles, self.exact, self.bounds, self.keep = order, tiles, exact, bounds, keep
        position = order.place[golds[1]]
        by_position = np.argsort(position, kind="stable")
        self.gold_query, self.gold_position = golds[0][by_position], position[by_position]
        self.counter: Counter | None = None  # from the first tile on, which has the type of the scores

    def run(self, text: Ints, groups: list[LargeGroups]) -> None:
        """Count and collect; `text` has the text of each column."""
        for start, stop, points, first in self.order.tiles:
            parts = [part for own in groups for part in own.in_tile(start, stop)]
            if not parts:
                continue
            check_stop()
            scores = self.tiles.scores(text[self.order.column[start:stop]])
            if self.counter is None:
                self.counter = self._begin(groups, scores)
            here = slice(*np.searchsorted(self.gold_position, (start, stop)))
            columns = self.gold_position[here] - start
            scores[torch.from_numpy(self.gold_query[here]), torch.from_numpy(columns)] = -torch.inf
            tile = ScoredTile(scores)
            self.counter.count(tile, parts, start, points)
            if self.keep:
                for part in parts:
                    self._nearest(tile, part, points, first)
            if self.counter.waiting > MOST_OPEN:
                self._decide(self.counter, groups)
        if self.counter is not None:
            self._decide(self.counter, groups)

    def _begin(self, groups: list[LargeGroups], scores: Tensor) -> Counter:
        low, high = (part.to(scores.device) for part in outside(self.tiles, self.bounds, scores.dtype))
        self.margin = 2 * self.tiles.error.to(scores.device)
        for own in groups:
            own.begin(self.bounds.shape[1], self.keep, scores)
        return Counter(low, high)

    def _decide(self, counter: Counter, groups: list[LargeGroups]) -> None:
        """Count the open comparisons by exact scores."""
        if not counter.waiting:
            return
        query, bound, position = counter.take_open()
        column = self.order.column[position]
        above = self.exact(query, column) > self.bounds[query, bound]
        query, bound, column = query[above], bound[above], column[above]
        for own in groups:
            is_point = column >= own.grouping.candidates.points
            for points, some in enumerate((~is_point, is_point)):
                own.decide(query[some], bound[some], column[some], points)

    def _nearest(self, tile: ScoredTile, group: GroupInTile, points: bool, first: bool) -> None:
        """Collect the columns of a tile that may be among the nearest of a group's queries.

        First copies raise the threshold: any list of candidates has as many of them, apart from the query itself.
        """
        own, some = group.own, tile.within(group.rows, group.columns)
        row = torch.from_numpy(group.rows).to(tile.scores.device)
        if first:
            # the best scores of many chunks are nearly the best scores of all columns, and never above them
            good = some.best if some.best.shape[1] >= 4 * self.keep else some.chunks.flatten(1)
            if good.shape[1] % 4 == 0 and good.shape[1] >= 16 * self.keep:
                good = good.unflatten(1, (4, -1)).amax(dim=1)
            good = good.topk(min(self.keep, good.shape[1]), dim=1).values
            for best in own.best[1:] if points else own.best:
                best[row] = torch.cat([best[row], good], dim=1).topk(self.keep, dim=1).values
        lowest = own.best[int(points)][row, -1].double() - self.margin[row]
        lowest = (lowest - ROUNDING[torch.float32] * lowest.abs()).to(tile.scores.dtype)
        lowest = lowest.clamp(min=torch.finfo(lowest.dtype).min)[:, None]
        query, column, _ = some.in_chunks(some.best >= lowest, lowest, equal=True)
        own.collect(group.rows[query.cpu().numpy()], group.member[column.cpu().numpy()])
