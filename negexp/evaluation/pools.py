"""Candidate pools: which arguments compete for a query, in each of the eight tasks of Wachsmuth et al. (2018).

A pool is built for a block of queries of one group (a debate, a theme or the whole split): every counter of the group
and, where the task has them, every point are columns, and a mask says which of them each query may see.
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
    """Queries of one block and the columns they are ranked against.

    query: rows of the split (queries,); text: text of each candidate (columns,); argument (columns,): row r of the
    split's points is r, row r of its counters n + r, n pairs in all; allowed, gold: (queries, columns).
    """

    query: Ints
    argument: Ints
    text: Ints
    allowed: np.ndarray
    gold: np.ndarray


def possible_tasks(split: Split) -> tuple[list[Task], list[Task]]:
    """Return the tasks that the split's metadata allows, and those it does not."""
    present = {name for name in ("theme", "debate", "stance") if getattr(split, name) is not None}
    return [task for task in TASKS if task.needs() <= present], [task for task in TASKS if not task.needs() <= present]


def protocol_queries(split: Split, protocol: str) -> Ints:
    """Return the rows that are queries: all of them (published), or the first of every distinct pair (clean).

    A pair of two identical texts is no query of the clean protocol, which removes the query's text from its pool.
    """
    if protocol == "published":
        return np.arange(len(split))
    return np.flatnonzero(first_of_pair(split) & (split.point != split.counter))


def pools(split: Split, task: Task, protocol: str, queries: Ints, block_bytes: int) -> Iterator[Pool]:
    """Yield the pools of one task; together they cover every given query that the protocol keeps, once.

    A block of queries times columns stays below `block_bytes` at eight bytes a cell, so memory does not grow with
    the square of the split.
    """
    asked = np.isin(np.arange(len(split)), np.intersect1d(queries, protocol_queries(split, protocol)))
    codes = np.zeros(len(split), dtype=np.int64) if task.group == "split" else getattr(split, task.group)
    order = np.argsort(codes, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        wanted = group[asked[group]]
        columns = len(group) * (1 if task.points is None else 2)
        block = max(1, block_bytes // (8 * columns))
        for start in range(0, len(wanted), block):
            yield _pool(split, task, protocol, wanted[start : start + block], group)


def _pool(split: Split, task: Task, protocol: str, query: Ints, group: Ints) -> Pool:
    argument = len(split) + group
    allowed = np.ones((len(query), len(group)), dtype=bool)
    if task.own_stance:
        assert split.stance is not None
        allowed &= split.stance[query][:, None] == split.stance[group]
    if task.points is not None:
        if task.points == "all":
            points_allowed = query[:, None] != group
        else:
            assert split.stance is not None
            points_allowed = split.stance[query][:, None] != split.stance[group]
        argument = np.concatenate([argument, group])
        allowed = np.concatenate([allowed, points_allowed], axis=1)
    text = np.concatenate([split.point, split.counter])[argument]
    if protocol == "clean":
        allowed &= text != split.point[query][:, None]
        _keep_first_of_each_text(text, allowed)
    gold = allowed & (text == split.counter[query][:, None])
    return Pool(query, argument, text, allowed, gold)


def _keep_first_of_each_text(text: Ints, allowed: np.ndarray) -> None:
    """Clear, in place and query by query, every candidate whose text an earlier allowed candidate has."""
    order = np.argsort(text, kind="stable")
    repeated = np.split(order, np.flatnonzero(np.diff(text[order])) + 1)
    for columns in repeated:
        if len(columns) > 1:
            seen = np.logical_or.accumulate(allowed[:, columns], axis=1)
            allowed[:, columns[1:]] &= ~seen[:, :-1]
