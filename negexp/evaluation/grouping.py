"""Which columns compete for which queries: the split, the themes, the debates, or the sides of the debates.

Each task takes the columns of its query's group: those that are no points, or all. So eight tasks need four groupings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints
from negexp.corpus.collection import Collection
from negexp.evaluation.candidates import Candidates

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Grouping:
    """Groups of columns. The queries of a group share its columns, so no matrix of queries and columns is needed.

    candidates: the columns. group (pairs,): the group of each row as a query. start (groups + 1,): the first member of
    each group. column (members,): the columns of the groups, ascending within each.
    """

    candidates: Candidates
    group: Ints
    start: Ints
    column: Ints

    @classmethod
    def of(cls, candidates: Candidates, name: str, sides: bool) -> Grouping:
        """Return the groups by `split`, `theme` or `debate`; `sides`: see `_sides`."""
        split = candidates.split
        codes = np.zeros(len(split), dtype=np.int64) if name == "split" else getattr(split, name)
        group = np.unique(codes, return_inverse=True)[1]
        point = np.stack([group[candidates.point_rows], np.arange(candidates.points, len(candidates))])
        if sides:
            group, point = _sides(candidates, group, point)
        if split.collection is None:
            first = np.stack([group, np.arange(len(split))])
        elif name == "split":
            first = np.stack([np.zeros(candidates.points, dtype=np.int64), np.arange(candidates.points)])
        else:
            first = _documents(split.collection, group)
        members = np.concatenate([first, point], axis=1)
        order = np.argsort(members[0], kind="stable")  # columns ascend within each group already
        groups = int(group.max(initial=-1)) + 1
        start = np.searchsorted(members[0][order], np.arange(groups + 1))
        return cls(candidates, group, start, members[1][order])

    @cached_property
    def size(self) -> Ints:
        """Return the number of columns of each group."""
        return np.diff(self.start)

    @cached_property
    def member_group(self) -> Ints:
        """Return the group of each member."""
        return np.repeat(np.arange(len(self.size)), self.size)

    @cached_property
    def _by_identity(self) -> tuple[Ints, Ints]:
        """Return one number for each group and identity, ascending, and the member that it belongs to."""
        key = self._identity_key(self.member_group, self.candidates.identity[self.column])
        order = np.argsort(key, kind="stable")
        return key[order], order

    @cached_property
    def first(self) -> Mask:
        """Return whether no earlier column of the group is a copy of this one (members,)."""
        key, member = self._by_identity
        first = np.zeros(len(key), dtype=np.bool_)
        first[member[np.diff(key, prepend=-1) != 0]] = True
        return first

    @cached_property
    def pool_size(self) -> NDArray[np.int64]:
        """Return the numbers of candidates (groups, 2, 2): without and with points, all and the first copies only."""
        size = np.zeros((len(self.size), 2, 2), dtype=np.int64)
        is_point = self.column >= self.candidates.points
        for points, kept in enumerate((~is_point, np.ones_like(is_point))):
            for clean, counted in enumerate((kept, kept & self.first)):
                size[:, points, clean] = np.bincount(self.member_group[counted], minlength=len(size))
        return size

    def members(self, group: Ints) -> tuple[Ints, Ints]:
        """Return all members of some groups: place in `group`, member; columns ascend within each place."""
        return _ranges(self.start[group], self.start[group + 1])

    def copies(self, group: Ints, identity: Ints) -> tuple[Ints, Ints]:
        """Return the members of some groups with these identities: place in `group`, member; columns ascend."""
        key, member = self._by_identity
        wanted = np.where(identity < 0, -1, self._identity_key(group, identity))
        place, found = _ranges(*(np.searchsorted(key, wanted, side) for side in ("left", "right")))
        return place, member[found]

    def find(self, group: Ints, column: Ints) -> Ints:
        """Return the member of a group that is the given column, -1 for none."""
        key = self._column_key
        wanted = np.where(column < 0, -1, group * len(self.candidates) + column)
        member = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        return np.where(key[member] == wanted, member, -1)

    @cached_property
    def _column_key(self) -> Ints:
        """Return one number for each member, ascending."""
        return self.member_group * len(self.candidates) + self.column

    def _identity_key(self, group: Ints, identity: Ints) -> Ints:
        return group * self.candidates.identities + identity


def _ranges(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Return all numbers of some ranges: the range, and the number.

    >>> [part.tolist() for part in _ranges(np.array([5, 1, 8]), np.array([7, 1, 9]))]
    [[0, 0, 2], [5, 6, 8]]
    """
    count = stop - start
    place = np.repeat(np.arange(len(count)), count)
    return place, np.arange(len(place)) + np.repeat(stop - np.cumsum(count), count)


def _sides(candidates: Candidates, debate: Ints, point: Ints) -> tuple[Ints, Ints]:
    """Return groups of a debate and a stance, and their points: those of the debate's other stances.

    `point` has the debate and the column (2, points) of each point.
    """
    stance = candidates.split.stance
    assert stance is not None
    stances = int(stance.max(initial=0)) + 1
    sides, group = np.unique(debate * stances + stance, return_inverse=True)
    start, stop = (np.searchsorted(sides // stances, point[0], side) for side in ("left", "right"))
    place, other = _ranges(start, stop)  # every group of the point's debate
    column = point[1][place]
    apart = group[candidates.point_rows][column - candidates.points] != other
    return group, np.stack([other[apart], column[apart]])


def _documents(collection: Collection, group: Ints) -> Ints:
    """Return the golds of each group's queries: group and document (2, members)."""
    queries = int(collection.query.max(initial=0)) + 1
    of_group, query = np.divmod(np.unique(group * queries + collection.query), queries)
    start, stop = (np.searchsorted(collection.golds.query, query, side) for side in ("left", "right"))
    place, gold = _ranges(start, stop)
    members = np.unique(of_group[place] * len(collection) + collection.golds.document[gold])
    return np.stack(np.divmod(members, len(collection)))
