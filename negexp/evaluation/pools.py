"""The eight tasks of Wachsmuth et al. (2018): which arguments compete for a query; and the queries of each protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from negexp.corpus.arguments import Ints, Split
from negexp.corpus.overlap import first_of_pair
from negexp.evaluation.candidates import collection_queries

STAGES = ("retrieval", "reranked")
PROTOCOLS = ("published", "clean")


@dataclass(frozen=True)
class Task:
    """The candidates of a task: counters and points of the query's debate, theme or split (`group`).

    `own_stance` limits the counters to the query's stance folder, and the points to those of other stances. `points`:
    whether there are points among the candidates.
    """

    name: str
    group: str
    own_stance: bool
    points: bool

    @property
    def grouping(self) -> tuple[str, bool]:
        """Return what the candidates have in common: the group, and whether it is divided by stance."""
        return self.group, self.own_stance

    def needs(self) -> set[str]:
        """Return the metadata that the task needs."""
        stance = {"stance"} if self.own_stance else set()
        return stance | ({self.group} - {"split"})


TASKS = (
    Task("sdoc", "debate", own_stance=True, points=False),
    Task("sdc", "debate", own_stance=False, points=False),
    Task("sdoa", "debate", own_stance=True, points=True),
    Task("sda", "debate", own_stance=False, points=True),
    Task("stc", "theme", own_stance=False, points=False),
    Task("sta", "theme", own_stance=False, points=True),
    Task("epc", "split", own_stance=False, points=False),
    Task("epa", "split", own_stance=False, points=True),
)


class Cell(NamedTuple):
    """One protocol and task."""

    protocol: str
    task: Task

    @property
    def clean(self) -> bool:
        """Return whether copies are one candidate."""
        return self.protocol == "clean"

    @property
    def points(self) -> bool:
        """Return whether points are candidates."""
        return self.task.points


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
