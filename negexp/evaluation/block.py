"""A block of queries and the groups that they belong to: golds, exclusions, scores, ranks and nearest candidates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints
from negexp.evaluation.candidates import Candidates, Golds
from negexp.evaluation.golds import SCORE_TIE, GoldRanks, best_slots, gains, lowered
from negexp.evaluation.grouping import Grouping
from negexp.evaluation.nearest_lists import Entries, Nearest
from negexp.evaluation.scores import Floats, Scorer
from negexp.evaluation.tiles import GroupTiles, LargeGroups, TileOrder

MOST_HITS = 2**18  # collected columns whose exact scores are not known yet


class RankedCell(NamedTuple):
    """A block of queries in one task and protocol.

    golds: ranks of the best golds. grade (queries, golds): grades of the golds that are candidates, else 0. candidates
    (queries,): their number. nearest: the best candidates; the scores of golds are lowered by the tie width.
    """

    golds: GoldRanks
    grade: Ints
    candidates: Ints
    nearest: Nearest

    def take(self, queries: NDArray[np.bool_]) -> RankedCell:
        """Return some of the queries."""
        golds = GoldRanks(self.golds.slot[queries], self.golds.rank[queries], self.golds.gain[queries])
        return RankedCell(golds, self.grade[queries], self.candidates[queries], self.nearest.take(queries))


class PoolGolds(NamedTuple):
    """The golds of one task and protocol: of each query the best ones, and all of their copies.

    slot, bound, gain (queries, best): place in `Golds`, score lowered by the tie width, see `GoldRanks`. grade: see
    `RankedCell`. cells: query, slot, column and score of each gold and its copies.
    """

    slot: Ints
    bound: Floats
    gain: Floats
    grade: Ints
    cells: tuple[Ints, Ints, Ints, Floats]


@dataclass(frozen=True)
class Block:
    """Queries that are ranked together, as rows of the split."""

    candidates: Candidates
    rows: Ints
    scorer: Scorer

    @property
    def text(self) -> Ints:
        """Return the text of each query."""
        return self.candidates.split.point[self.rows]

    @cached_property
    def golds(self) -> Golds:
        """Return the golds of the queries."""
        return self.candidates.golds(self.rows)

    def exact(self, query: Ints, column: Ints) -> Floats:
        """Return the exact scores of pairs; queries are places in the block."""
        return self.scorer.pairs(self.text[query], self.candidates.text[column])


class GroupedBlock:
    """A block of queries with the groups of one grouping.

    Parameters
    ----------
    small
        The pairs of groups with at most so many columns are all scored.
    keep
        Of other groups, so many candidates of each list are kept.
    """

    def __init__(self, block: Block, grouping: Grouping, small: int, keep: int) -> None:
        self.block, self.grouping, self.queries = block, grouping, len(block.rows)
        self.keep = keep
        self.group = grouping.group[block.rows]
        identity = block.golds.identity
        self.gold_place, self.gold_member = grouping.copies(np.repeat(self.group, identity.shape[1]), identity.ravel())
        self.gold_query, self.gold_slot = np.divmod(self.gold_place, identity.shape[1])
        self.gold_column = grouping.column[self.gold_member]
        self.gold_score = self._gold_scores()
        self.excluded = self._excluded()
        self.hits: list[tuple[Ints, Ints]] = []
        self.is_small = grouping.size[self.group] <= small
        self.entries = self._score_small()
        self.large: LargeGroups | None = None

    def _gold_scores(self) -> Floats:
        """Return the exact scores of golds and their copies; texts that are equal are scored once."""
        if self.block.candidates.split.respelled:
            return self.block.exact(self.gold_query, self.gold_column)
        new = np.diff(self.gold_place, prepend=-1) != 0
        score: Floats = self.block.exact(self.gold_query[new], self.gold_column[new])[np.cumsum(new) - 1]
        return score

    def _excluded(self) -> tuple[Ints, Ints]:
        """Return the columns (queries, 1 or 2) that are no candidates, in both protocols; -1 for none.

        published: the query itself. clean: the first copy of it in the group.
        """
        candidates, rows, group = self.block.candidates, self.block.rows, self.group
        itself = candidates.itself(rows)
        published = np.where(self.grouping.find(group[:, None], itself) >= 0, itself, -1)
        identity = candidates.own_identities(rows)
        clean = np.full(itself.shape, -1)
        place, member = self.grouping.copies(np.repeat(group, itself.shape[1]), identity.ravel())
        first = np.diff(place, prepend=-1) != 0
        clean.ravel()[place[first]] = self.grouping.column[member[first]]
        clean[:, 1:][clean[:, 1:] == clean[:, :1]] = -1
        return published, clean

    # ---- scores ------------------------------------------------------------------------------------------------------

    def _score_small(self) -> Entries:
        """Score all pairs of the queries in small groups, but for the golds."""
        small = np.flatnonzero(self.is_small)
        place, member = self.grouping.members(self.group[small])
        query = small[place]
        kept = ~self._is_gold(query, self.grouping.column[member])
        return self._score(query[kept], member[kept])

    def large_groups(self, tiles: dict[int, GroupTiles], order: TileOrder) -> LargeGroups | None:
        """Return the queries in large groups, None if there are none. `tiles` keeps what is known of a group."""
        group = np.where(self.is_small, -1, self.group)
        parts = []
        for one in np.unique(group[group >= 0]).tolist():
            if one not in tiles:
                tiles[one] = GroupTiles.of(self.grouping, one, order)
            parts.append((np.flatnonzero(group == one), tiles[one]))
        self.large = LargeGroups(self.grouping, group, parts, self.collect) if parts else None
        return self.large

    def collect(self, query: Ints, member: Ints) -> None:
        """Keep members that may be among the nearest."""
        self.hits.append((query, member))
        if sum(len(query) for query, _ in self.hits) > MOST_HITS:
            self.settle()

    def settle(self) -> None:
        """Score the collected members, and drop those that no list of candidates can contain."""
        if not self.hits:
            return
        query, member = (np.concatenate(parts) for parts in zip(*self.hits, strict=True))
        self.hits = []
        new = self._score(query, member)
        query, member, column, score = (np.concatenate(parts) for parts in zip(self.entries, new, strict=True))
        order = np.argsort(query, kind="stable")
        entries = Entries.of(query[order], member[order], column[order], score[order])
        needed = np.zeros(len(entries.query), dtype=np.bool_)
        for points in (False, True):
            for clean in (False, True):
                own = self._of_pool(entries, points, clean)
                listed = entries.where(own)
                needed[np.flatnonzero(own)[listed.place() < self.keep]] = True
        self.entries = entries.where(needed | self.is_small[entries.query])

    def _score(self, query: Ints, member: Ints) -> Entries:
        order = np.argsort(query * len(self.grouping.column) + member, kind="stable")  # often sorted already
        query, member = query[order], member[order]
        column = self.grouping.column[member]
        return Entries.of(query, member, column, self.block.exact(query, column))

    def _is_gold(self, query: Ints, column: Ints) -> NDArray[np.bool_]:
        keys, columns = self._gold_keys, len(self.block.candidates)
        if not len(keys):
            return np.zeros(query.shape, dtype=np.bool_)
        wanted = query * columns + column
        found: NDArray[np.bool_] = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
        return found

    @cached_property
    def _gold_keys(self) -> Ints:
        """Return one number for each query and gold column, ascending."""
        return np.sort(self.gold_query * len(self.block.candidates) + self.gold_column)

    # ---- ranks -------------------------------------------------------------------------------------------------------

    def pool_golds(self, points: bool, clean: bool) -> PoolGolds:
        """Return the golds that are candidates, of counters alone or with points, in one protocol."""
        inside = (self.gold_column[:, None] != self.excluded[clean][self.gold_query]).all(axis=1)
        if clean:
            inside &= self.grouping.first[self.gold_member]
        if not points:
            inside &= self.gold_column < self.block.candidates.points
        query, slot, column = (part[inside] for part in (self.gold_query, self.gold_slot, self.gold_column))
        best = np.full(self.block.golds.identity.shape, -np.inf)
        np.maximum.at(best, (query, slot), self.gold_score[inside])
        grade = np.where(best > -np.inf, self.block.golds.grade, 0)
        score = lowered(best, SCORE_TIE)
        slots = best_slots(score, (query, slot, column))
        bound, gain = (np.take_along_axis(values, slots, axis=1) for values in (score, gains(grade)))
        return PoolGolds(slots, bound, gain, grade, (query, slot, column, score[query, slot]))

    def rank(self, golds: PoolGolds, points: bool, clean: bool, bounds: Floats, k: int) -> RankedCell:
        """Rank the golds, and list the k nearest; `bounds` are those of the pass over the tiles."""
        pool = self.entries.where(self._of_pool(self.entries, points, clean))
        above: Ints = np.zeros(golds.bound.shape, dtype=np.int64)
        for place in range(above.shape[1]):
            bound = golds.bound[:, place]
            above[:, place] = np.bincount(pool.query[pool.score > bound[pool.query]], minlength=self.queries)
        if self.large is not None:
            wide = self.large.group >= 0
            above[wide] = self._above_in_tiles(golds.bound, points, clean, bounds)[wide]
        ranks = 1 + above + np.arange(above.shape[1])  # the better golds stand above, too
        query, slot, column, score = golds.cells
        nearest = Nearest.of(pool, self.queries, k).with_golds(query, slot, column, score)
        gold_ranks = GoldRanks(golds.slot, ranks, golds.gain)
        return RankedCell(gold_ranks, golds.grade, self._pool_size(points, clean), nearest)

    def _of_pool(self, entries: Entries, points: bool, clean: bool) -> NDArray[np.bool_]:
        """Return whether entries are candidates."""
        excluded = self.excluded[clean]
        inside: NDArray[np.bool_] = (entries.column[:, None] != excluded[entries.query]).all(axis=1)
        if clean:
            inside &= self.grouping.first[entries.member]
        if not points:
            inside &= entries.column < self.block.candidates.points
        return inside

    def _pool_size(self, points: bool, clean: bool) -> Ints:
        excluded = self.excluded[clean]
        gone = (excluded >= 0) & (points | (excluded < self.block.candidates.points))
        size: Ints = self.grouping.pool_size[self.group, int(points), int(clean)] - gone.sum(axis=1)
        return size

    def _above_in_tiles(self, bound: Floats, points: bool, clean: bool, bounds: Floats) -> Ints:
        """Return how many candidates (queries, best) are above each bound, by the counts of the tiles."""
        assert self.large is not None
        counts = self.large.above[: 1 + points, int(clean)].sum(axis=0)  # (queries, bounds)
        place = (bound[:, :, None] == bounds[:, None, :]).argmax(axis=2)
        above = np.take_along_axis(counts, place, axis=1)
        excluded, scores = self.excluded[clean], self._excluded_scores[clean]
        for column, score in zip(excluded.T, scores.T, strict=True):
            counted = (column >= 0) & (points | (column < self.block.candidates.points))
            counted &= ~self._is_gold(np.arange(self.queries), column)  # golds are not counted
            above -= counted[:, None] & (score[:, None] > bound)
        return above

    @cached_property
    def _excluded_scores(self) -> tuple[Floats, Floats]:
        """Return the exact scores (queries, 1 or 2) of the columns that are no candidates, in both protocols."""
        scores = []
        for excluded in self.excluded:
            query, place = np.nonzero(excluded >= 0)
            scores.append(np.full(excluded.shape, -np.inf))
            scores[-1][query, place] = self.block.exact(query, excluded[query, place])
        return scores[0], scores[1]
