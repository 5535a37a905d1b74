"""Candidate pools: which arguments compete for a query, in each of the eight tasks of Wachsmuth et al. (2018).

A pool belongs to the queries of one group (a debate, a theme or the whole split), and of one stance where the task
requires it. These queries share their candidates, so a pool stores one list of candidates and no matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from negexp.corpus.argument_numbers import ArgumentNumbers
from negexp.corpus.arguments import Ints, Split
from negexp.corpus.overlap import first_of_pair

PROTOCOLS = ("published", "clean")


@dataclass(frozen=True)
class Task:
    """The candidates of a task: counters and points of the query's debate, theme or split (`group`).

    `own_stance` limits the counters to the query's stance folder. `points` is None (no points), "all" or "other
    stance".
    """

    name: str
    group: str
    own_stance: bool
    points: str | None

    def needs(self) -> set[str]:
        """Return the metadata that the task needs."""
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
    """Queries that share their candidates. At most one column is excluded per query: its own point or a copy of it.

    query: rows of the split (queries,), with their texts and the texts and identities of their gold counters.
    argument: the number of each candidate (columns,), see `ArgumentNumbers`. text: the text that is scored. identity:
    equal for all copies of a text, see `Split.identity`. excluded: (queries,) the column that is no candidate of the
    query, -1 if there is none. respelled: copies may have different spellings.
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
        """Return the pool of the queries from `start` to `stop`."""
        some = slice(start, stop)
        queries = self.query[some], self.query_text[some], self.gold_text[some], self.gold_identity[some]
        return Pool(*queries, self.argument, self.text, self.identity, self.excluded[some], self.respelled)

    def parts(self, size: int) -> Iterator[Pool]:
        """Yield pools of `size` queries each."""
        for start in range(0, len(self.query), size):
            yield self.part(start, start + size)

    @property
    def allowed(self) -> np.ndarray:
        """Return whether each column is a candidate of each query (queries, columns)."""
        allowed: np.ndarray = np.arange(len(self.text)) != self.excluded[:, None]
        return allowed

    @property
    def gold(self) -> np.ndarray:
        """Return whether each column is the gold of each query, or a copy of the gold (queries, columns)."""
        gold: np.ndarray = self.allowed & (self.identity == self.gold_identity[:, None])
        return gold

    def gold_texts(self) -> tuple[Ints, Ints]:
        """Return each distinct text of each query's gold: positions in `query` (golds,), ascending, and texts (golds,).

        A gold has several texts when its copies differ in spelling, see `data.match`.
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
        # a text may occur in the excluded column only; then it is no candidate of the query
        alone = (count[found] == 1) & (self.excluded[query] >= 0) & (text[found] == self.text[self.excluded[query]])
        return query[~alone], text[found][~alone]


def possible_tasks(split: Split) -> tuple[list[Task], list[Task]]:
    """Return the tasks that the split's metadata allows, and the tasks that it does not allow."""
    present = {name for name in ("theme", "debate", "stance") if getattr(split, name) is not None}
    return [task for task in TASKS if task.needs() <= present], [task for task in TASKS if not task.needs() <= present]


def protocol_queries(split: Split, protocol: str) -> Ints:
    """Return the rows that are queries: all rows (published), or the first row of every distinct pair (clean).

    A pair whose two texts are copies of each other is no query of the clean protocol, because its gold is not in the
    pool.
    """
    if protocol == "published":
        return np.arange(len(split))
    return np.flatnonzero(first_of_pair(split) & (split.point_identity != split.counter_identity))


def pools(split: Split, task: Task, protocol: str, queries: Ints) -> Iterator[Pool]:
    """Yield the pools of one task. Together they contain each given query of the protocol once.

    Time and memory grow linearly with the number of pairs of a group.
    """
    is_query = np.isin(np.arange(len(split)), np.intersect1d(queries, protocol_queries(split, protocol)))
    codes = np.zeros(len(split), dtype=np.int64) if task.group == "split" else getattr(split, task.group)
    order = np.argsort(codes, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        for own, others in _by_stance(split, group) if task.own_stance else [(group, group)]:
            query = own[is_query[own]]
            points = {None: others[:0], "all": group, "other stance": others}[task.points]
            if len(query):
                yield _pool(split, protocol, query, own, points)


def _by_stance(split: Split, group: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield the rows of each stance, and the rows of the other stances."""
    assert split.stance is not None
    stance = split.stance[group]
    for one in np.unique(stance):
        yield group[stance == one], group[stance != one]


def _pool(split: Split, protocol: str, query: Ints, counters: Ints, points: Ints) -> Pool:
    numbers = ArgumentNumbers(len(split))
    argument = np.concatenate([numbers.number("counter", counters), numbers.number("point", points)])
    text = np.concatenate([split.counter[counters], split.point[points]])
    identity = split.identify(text)
    if protocol == "clean":  # keep the first of all copies; exclude copies of the query
        first = np.sort(np.unique(identity, return_index=True)[1])
        argument, text, identity = argument[first], text[first], identity[first]
        excluded = _positions(identity, split.point_identity[query])
    else:
        excluded = _positions(argument, query)
    gold = split.counter[query], split.counter_identity[query]
    return Pool(query, split.point[query], *gold, argument, text, identity, excluded, split.respelled)


def _positions(values: Ints, searched: Ints) -> Ints:
    """Return the position of each searched value among distinct values, -1 if it does not occur."""
    order = np.argsort(values, kind="stable")
    place = np.minimum(np.searchsorted(values[order], searched), len(values) - 1)
    return np.where(values[order[place]] == searched, order[place], -1)
