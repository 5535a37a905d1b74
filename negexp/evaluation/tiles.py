"""Large groups: the scores of a block of queries, computed tile by tile, once for all tasks and protocols.

A tile's scores are wrong by up to a bound. Those that are surely above a query's gold are only counted. Where the bound
leaves it open, the exact score of the pair decides. Columns that may be among the nearest are collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.corpus.arguments import Ints
from negexp.evaluation.candidates import Candidates
from negexp.evaluation.grouping import Grouping
from negexp.evaluation.scores import Floats, Tiles, outside
from negexp.index.rounding import ROUNDING
from negexp.scratch import scratch
from negexp.signals import check_stop

TILE = 2**12  # columns scored at a time
CHUNK = 128  # columns whose counts are compared first
NEAREST_CHUNK = 16  # columns whose best score is compared first
MOST_OPEN = 2**20  # comparisons that wait for their exact scores

Exact = Callable[[Ints, Ints], Floats]  # queries of the block, columns -> exact scores (pairs,)
Collect = Callable[[Ints, Ints], None]  # queries of the block, members that may be among their nearest


class TileOrder:
    """The columns in the order of tiles: counters, points, then the copies of earlier counters and points.

    So a tile has points or none, and first copies or none. column: the columns in this order. place: the position of
    each column. tiles: start, end, whether its columns are points, whether they are first copies.
    """

    def __init__(self, candidates: Candidates) -> None:
        columns = np.arange(len(candidates))
        first = np.zeros(len(candidates), dtype=np.bool_)
        first[np.unique(candidates.identity, return_index=True)[1]] = True
        is_point = columns >= candidates.points
        sections = [(points, copies) for copies in (False, True) for points in (False, True)]
        parts = [columns[(is_point == points) & (first != copies)] for points, copies in sections]
        self.column = np.concatenate(parts)
        self.place = np.empty_like(columns)
        self.place[self.column] = columns
        self.tiles: list[tuple[int, int, bool, bool]] = []
        end = 0
        for part, (points, copies) in zip(parts, sections, strict=True):
            begin, end = end, end + len(part)
            self.tiles += [(start, min(start + TILE, end), points, not copies) for start in range(begin, end, TILE)]


@dataclass(frozen=True)
class GroupTiles:
    """The members of a group in the order of tiles: positions, ascending; members; whether each is a first copy."""

    position: Ints
    member: Ints
    first: NDArray[np.bool_]

    @classmethod
    def of(cls, grouping: Grouping, group: int, order: TileOrder) -> GroupTiles:
        """Return the members of one group."""
        member = np.arange(grouping.start[group], grouping.start[group + 1])
        position = order.place[grouping.column[member]]
        sort = np.argsort(position)
        member = member[sort]
        return cls(position[sort], member, grouping.first[member])


@dataclass
class LargeGroups:
    """The queries of a block whose groups of one grouping are large, and what the tiles say about them.

    parts: the queries of each group, and its members. above (2, 2, queries, bounds): how many columns are above each
    bound, that are no points and points, in the whole group and among first copies. The golds are not counted.
    """

    grouping: Grouping
    group: Ints  # (queries,), -1 where the group is not large
    parts: list[tuple[Ints, GroupTiles]]
    collect: Collect
    above: NDArray[np.int64] = field(init=False)
    best: list[Tensor] = field(init=False)  # of the counters, and of all columns so far: scores (queries, keep)

    def begin(self, bounds: int, keep: int, like: Tensor) -> None:
        """Start with no column seen."""
        queries = len(self.group)
        self.above = np.zeros((2, 2, queries, bounds), dtype=np.int64)
        self.best = [like.new_full((queries, keep), -torch.inf) for _ in range(2)]

    def decide(self, query: Ints, bound: Ints, column: Ints, points: int) -> None:
        """Count columns (pairs,) of which the exact score is above a bound."""
        member = self.grouping.find(self.group[query], np.where(self.group[query] < 0, -1, column))
        for clean, counted in enumerate((member >= 0, (member >= 0) & self.grouping.first[member])):
            np.add.at(self.above[points, clean], (query[counted], bound[counted]), 1)


class TilePass:
    """One pass over the tiles for a block of queries.

    Parameters
    ----------
    bounds
        (queries, any number) the exact scores with which columns are compared.
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
        self.open: list[tuple[Ints, Ints, Ints]] = []  # query, bound and position

    def run(self, text: Ints, groups: list[LargeGroups]) -> None:
        """Count and collect; `text` has the text of each column."""
        low: Tensor | None = None
        for start, stop, points, first in self.order.tiles:
            parts = list(_present(groups, start, stop))
            if not parts:
                continue
            check_stop()
            scores = self.tiles.scores(text[self.order.column[start:stop]])
            if low is None:
                low, high = (part.to(scores.device) for part in outside(self.tiles, self.bounds, scores.dtype))
                self.margin = 2 * self.tiles.error.to(scores.device)
                for own in groups:
                    own.begin(self.bounds.shape[1], self.keep, scores)
            here = slice(*np.searchsorted(self.gold_position, (start, stop)))
            columns = self.gold_position[here] - start
            scores[torch.from_numpy(self.gold_query[here]), torch.from_numpy(columns)] = -torch.inf
            for bound in range(self.bounds.shape[1]):
                above = self._compare(scores, low[:, bound, None], high[:, bound, None], bound, start)
                for own, rows, members, part in parts:
                    _count(above, own.above[int(points), :, :, bound], rows, members, part, start)
            if self.keep:
                for own, rows, members, part in parts:
                    self._nearest(scores, own, (rows, members, part), start, points, first)
            if sum(len(query) for query, *_ in self.open) > MOST_OPEN:
                self._decide(groups)
        self._decide(groups)

    def _compare(self, scores: Tensor, low: Tensor, high: Tensor, bound: int, start: int) -> Tensor:
        """Return 1 where a score is surely above the bound, else 0 (queries, columns); note the open comparisons."""
        queries, width = scores.shape
        padded = width + -width % CHUNK
        surely, maybe = (
            scratch(f"evaluation {name}", (queries, padded), scores.dtype, scores.device) for name in ("above", "maybe")
        )
        surely[:, width:] = 0
        torch.gt(scores, high, out=surely[:, :width])
        if scores.dtype != torch.float64:  # those are exact
            maybe[:, width:] = 0
            torch.gt(scores, low, out=maybe[:, :width])
            counts = [part.view(queries, -1, CHUNK).sum(dim=2) for part in (surely, maybe)]
            query, chunk = (counts[0] != counts[1]).nonzero(as_tuple=True)
            column = chunk[:, None] * CHUNK + torch.arange(CHUNK, device=scores.device)
            hit, member = (maybe[query[:, None], column] != surely[query[:, None], column]).nonzero(as_tuple=True)
            found = query[hit].cpu().numpy()
            self.open.append((found, np.full(len(found), bound), start + column[hit, member].cpu().numpy()))
        return surely[:, :width]

    def _decide(self, groups: list[LargeGroups]) -> None:
        """Count the open comparisons by exact scores."""
        if not self.open:
            return
        query, bound, position = (np.concatenate(parts) for parts in zip(*self.open, strict=True))
        self.open = []
        column = self.order.column[position]
        above = self.exact(query, column) > self.bounds[query, bound]
        query, bound, column = query[above], bound[above], column[above]
        for own in groups:
            is_point = column >= own.grouping.candidates.points
            for points, some in enumerate((~is_point, is_point)):
                own.decide(query[some], bound[some], column[some], points)

    def _nearest(
        self,
        scores: Tensor,
        own: LargeGroups,
        part: tuple[Ints, slice, GroupTiles],
        start: int,
        points: bool,
        first: bool,
    ) -> None:
        """Collect the columns of a tile that may be among the nearest of a group's queries.

        First copies raise the threshold: any list of candidates has as many of them, apart from the query itself.
        """
        rows, members, group = part
        some = _within(scores, rows, group.position[members] - start)
        row = torch.from_numpy(rows).to(scores.device)
        chunks = _chunks(some)
        chunk_best = chunks.amax(dim=1)
        if first:
            # the best scores of many chunks are nearly the best scores of all columns, and never above them
            good = chunk_best if chunk_best.shape[1] >= 4 * self.keep else some
            if good.shape[1] % 4 == 0 and good.shape[1] >= 16 * self.keep:
                good = good.unflatten(1, (4, -1)).amax(dim=1)
            good = good.topk(min(self.keep, good.shape[1]), dim=1).values
            for best in own.best[1:] if points else own.best:
                best[row] = torch.cat([best[row], good], dim=1).topk(self.keep, dim=1).values
        lowest = own.best[int(points)][row, -1].double() - self.margin[row]
        lowest = (lowest - ROUNDING[torch.float32] * lowest.abs()).to(scores.dtype)
        lowest = lowest.clamp(min=torch.finfo(scores.dtype).min)[:, None]
        query, chunk = (chunk_best >= lowest).nonzero(as_tuple=True)
        hit, member = (chunks[query, :, chunk] >= lowest[query]).nonzero(as_tuple=True)
        column = chunk[hit] + member * chunks.shape[2]
        own.collect(rows[query[hit].cpu().numpy()], group.member[members][column.cpu().numpy()])


def _present(groups: list[LargeGroups], start: int, stop: int) -> Iterator[tuple[LargeGroups, Ints, slice, GroupTiles]]:
    """Yield the groups that have columns in a tile, with their queries, these members, and all."""
    for own in groups:
        for rows, part in own.parts:
            members = slice(*np.searchsorted(part.position, (start, stop)))
            if members.start < members.stop:
                yield own, rows, members, part


def _count(above: Tensor, counts: NDArray[np.int64], rows: Ints, members: slice, part: GroupTiles, start: int) -> None:
    """Add the columns above a bound to the counts (2, queries) of a group's members, all and first copies."""
    column, first = part.position[members] - start, part.first[members]
    total = _within(above, rows, column).sum(dim=1).long().cpu().numpy()
    counts[0, rows] += total
    if first.all():
        counts[1, rows] += total
    elif first.any():
        counts[1, rows] += _within(above, rows, column[first]).sum(dim=1).long().cpu().numpy()


def _within(tile: Tensor, rows: Ints, columns: Ints) -> Tensor:
    """Return some queries and columns of a tile; both ascend. Without gaps, nothing is copied."""
    for dim, places in enumerate((rows, columns)):
        if places[-1] - places[0] + 1 == len(places):
            tile = tile.narrow(dim, int(places[0]), len(places))
        else:
            tile = tile.index_select(dim, torch.from_numpy(places).to(tile.device))
    return tile


def _chunks(scores: Tensor) -> Tensor:
    """Return scores (queries, NEAREST_CHUNK, chunks), -inf beyond the last column.

    A chunk holds every `chunks`-th column, so that the maximum over chunks reads whole rows.
    """
    missing = -scores.shape[1] % NEAREST_CHUNK
    if missing:
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    chunks: Tensor = scores.unflatten(1, (NEAREST_CHUNK, -1))
    return chunks
