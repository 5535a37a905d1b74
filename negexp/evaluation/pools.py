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
from negexp.evaluation.collection_pools import collection_pool, collection_queries, documents_of
from negexp.evaluation.pool import Pool, first_copies, positions

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


def possible_tasks(split: Split) -> tuple[list[Task], list[Task]]:
    """Return the tasks that the split's metadata allows, and the tasks that it does not allow."""
    present = {name for name in ("theme", "debate", "stance") if getattr(split, name) is not None}
    return [task for task in TASKS if task.needs() <= present], [task for task in TASKS if not task.needs() <= present]


def protocol_queries(split: Split, protocol: str) -> Ints:
    """Return the rows that are queries: all rows (published), or the first row of every distinct pair (clean).

    A pair whose two texts are copies of each other is no query of the clean protocol, because its gold is not in the
    pool. With a collection, these are the first row of every query with a gold in the pool, or of every distinct text
    and set of golds.
    """
    if split.collection is not None:
        return collection_queries(split, split.collection, protocol)
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
            if len(query) and split.collection is not None:
                documents = documents_of(split.collection, None if task.group == "split" else own)
                yield collection_pool(split, protocol, query, documents, points)
            elif len(query):
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
        argument, text, identity = first_copies(argument, text, identity)
        excluded = positions(identity, split.point_identity[query])
    else:
        excluded = positions(argument, query)
    row = query[:, None]  # the only gold of each query is its counter
    gold = numbers.number("counter", row), split.counter[row], split.counter_identity[row], np.ones_like(row)
    return Pool(query, split.point[query], *gold, argument, text, identity, excluded[:, None], split.respelled)
