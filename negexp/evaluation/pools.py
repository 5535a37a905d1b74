"""Candidate pools: which arguments compete for a query, in each of the eight tasks of Wachsmuth et al. (2018).

A pool is built for the queries of one group (a debate, a theme or the whole split), and of one stance where the task
asks for it. They share their candidates, so a pool is a list of these and not a matrix of who may see what.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from negexp.corpus.arguments import Ints, Split
from negexp.corpus.overlap import first_of_pair

PROTOCOLS = ("published", "clean")


@dataclass(frozen=True)
class Task:
    """Candidates of a task: the group they share with the query, and which counters and points of it.

    `points` is None (no points), "all" or "other stance"; `own_stance` limits counters to the query's stance folder.
    """

    name: str
    group: str
    own_stance: bool
    points: str | None

    def needs(self) -> set[str]:
        """Return the metadata without which the task cannot be built."""
        stance = {"stance"} if self.own_stance else set()
        return stance | ({self.group} - {"split"})


TASKS = (
    Task("sdoc", "debate", own_stance=True, points=None),
    Task("sdc", "debate", own_stance=False, points=None),
    Task("sdoa", "debate", own_stance=True, points="other stance"),
    Task("sda", "debate", own_stance=False, points="all"),
    Task("stc", "theme", own_stance=False, points=None),
    Task("sta", "theme", own_stance=False, points="all"),
    Task("epc", "split", own_stance=False, points=None),
    Task("epa", "split", own_stance=False, points="all"),
)


@dataclass(frozen=True)
class Pool:
    """Queries that share their candidates, all but one at most: their own point, or what has their own text.

    query: rows of the split (queries,), with their texts, and the texts and identities of their gold counters.
    argument: of each candidate (columns,), row r of the split's points is r, row r of its counters n + r, n pairs in
    all; text: the text that is scored; identity: the same number for all copies of it, see `Split.identity`. excluded:
    (queries,) column that is no candidate of the query, -1 where all are. respelled: copies may have different texts.
    """

    query: Ints
    query_text: Ints
    gold_text: Ints
    gold_identity: Ints
    argument: Ints
    text: Ints
    identity: Ints
    excluded: Ints
    respelled: bool

    def part(self, start: int, stop: int) -> Pool:
        """Return the pool of some of the queries."""
        some = slice(start, stop)
        queries = self.query[some], self.query_text[some], self.gold_text[some], self.gold_identity[some]
        return Pool(*queries, self.argument, self.text, self.identity, self.excluded[some], self.respelled)

    def parts(self, size: int) -> Iterator[Pool]:
        """Yield the pools of `size` queries at a time."""
        for start in range(0, len(self.query), size):
            yield self.part(start, start + size)

    @property
    def allowed(self) -> np.ndarray:
        """Return whether each column is a candidate of each query (queries, columns)."""
        allowed: np.ndarray = np.arange(len(self.text)) != self.excluded[:, None]
        return allowed

    @property
    def gold(self) -> np.ndarray:
        """Return whether each column is the gold of each query, or a copy of it (queries, columns)."""
        gold: np.ndarray = self.allowed & (self.identity == self.gold_identity[:, None])
        return gold

    def gold_texts(self) -> tuple[Ints, Ints]:
        """Return queries (golds,) as places in `query`, ascending, and texts (golds,): each text of a gold, once.

        A gold has one text, or several where copies of it differ in spelling, see `data.match`.
        """
        if not self.respelled:
            return np.arange(len(self.query)), self.gold_text
        text, column, count = np.unique(self.text, return_index=True, return_counts=True)
        order = np.argsort(self.identity[column], kind="stable")
        text, identity, count = text[order], self.identity[column][order], count[order]
        start, stop = (np.searchsorted(identity, self.gold_identity, side) for side in ("left", "right"))
        golds = stop - start
        query = np.repeat(np.arange(len(self.query)), golds)
        found = np.arange(len(query)) + np.repeat(stop - np.cumsum(golds), golds)
        # the only column with a text may be the one that is no candidate of the query
        alone = (count[found] == 1) & (self.excluded[query] >= 0) & (text[found] == self.text[self.excluded[query]])
        return query[~alone], text[found][~alone]


def possible_tasks(split: Split) -> tuple[list[Task], list[Task]]:
    """Return the tasks that the split's metadata allows, and those it does not."""
    present = {name for name in ("theme", "debate", "stance") if getattr(split, name) is not None}
    return [task for task in TASKS if task.needs() <= present], [task for task in TASKS if not task.needs() <= present]


def protocol_queries(split: Split, protocol: str) -> Ints:
    """Return the rows that are queries: all of them (published), or the first of every distinct pair (clean).

    A pair whose texts are copies of each other is no query of the clean protocol: its gold is removed from the pool.
    """
    if protocol == "published":
        return np.arange(len(split))
    return np.flatnonzero(first_of_pair(split) & (split.point_identity != split.counter_identity))


def pools(split: Split, task: Task, protocol: str, queries: Ints) -> Iterator[Pool]:
    """Yield the pools of one task; together they cover every given query that the protocol keeps, once.

    Time and memory grow with the pairs of a group, not with their square.
    """
    asked = np.isin(np.arange(len(split)), np.intersect1d(queries, protocol_queries(split, protocol)))
    codes = np.zeros(len(split), dtype=np.int64) if task.group == "split" else getattr(split, task.group)
    order = np.argsort(codes, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        for own, others in _by_stance(split, group) if task.own_stance else [(group, group)]:
            wanted = own[asked[own]]
            points = {None: others[:0], "all": group, "other stance": others}[task.points]
            if len(wanted):
                yield _pool(split, protocol, wanted, own, points)


def _by_stance(split: Split, group: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield the rows of each stance, and those of the others."""
    assert split.stance is not None
    stance = split.stance[group]
    for one in np.unique(stance):
        yield group[stance == one], group[stance != one]


def _pool(split: Split, protocol: str, query: Ints, counters: Ints, points: Ints) -> Pool:
    argument = np.concatenate([len(split) + counters, points])
    text = np.concatenate([split.counter[counters], split.point[points]])
    identity = split.identify(text)
    if protocol == "clean":  # of copies one candidate, the first; none that is a copy of the query
        first = np.sort(np.unique(identity, return_index=True)[1])
        argument, text, identity = argument[first], text[first], identity[first]
        excluded = _place(identity, split.point_identity[query])
    else:
        excluded = _place(argument, query)
    gold = split.counter[query], split.counter_identity[query]
    return Pool(query, split.point[query], *gold, argument, text, identity, excluded, split.respelled)


def _place(values: Ints, wanted: Ints) -> Ints:
    """Return where each wanted value stands among values that are all different, -1 where it does not."""
    order = np.argsort(values, kind="stable")
    place = np.minimum(np.searchsorted(values[order], wanted), len(values) - 1)
    return np.where(values[order[place]] == wanted, order[place], -1)
