"""Large groups: their columns in the order of tiles, and what a pass over the tiles finds out about their queries."""

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

TILE = 2**12  # columns scored at a time

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

    def in_tile(self, start: int, stop: int) -> Iterator[GroupInTile]:
        """Yield the groups that have columns at these positions."""
        for rows, part in self.parts:
            members = slice(*np.searchsorted(part.position, (start, stop)))
            if members.start < members.stop:
                columns = part.position[members] - start
                yield GroupInTile(self, rows, columns, part.first[members], part.member[members], stop - start)


@dataclass(frozen=True)
class GroupInTile:
    """The columns of a group in a tile.

    own: the counts that its queries belong to. rows: its queries, as places in the block. columns: its columns, as
    places in the tile. first, member: of each column, whether it is a first copy; its number in the grouping. width:
    columns of the tile. Rows and columns ascend.
    """

    own: LargeGroups
    rows: Ints
    columns: Ints
    first: NDArray[np.bool_]
    member: Ints
    width: int

    def membership(self, query: Ints, column: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return whether pairs of query and column belong to the group, and whether as a first copy."""
        has_query = np.zeros(len(self.own.group), dtype=np.bool_)
        has_query[self.rows] = True
        inside, first = np.zeros((2, self.width), dtype=np.bool_)
        inside[self.columns] = True
        first[self.columns] = self.first
        own = has_query[query]
        return own & inside[column], own & first[column]
