"""TREC `run` and `qrels` files of an evaluation, for trec_eval, ir_measures and other tools."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from negexp.config import EvaluationConfig
from negexp.corpus.arguments import Ints, Split
from negexp.evaluation.pool import Pool
from negexp.evaluation.pools import PROTOCOLS, Task, pools, possible_tasks
from negexp.evaluation.ranking import STAGES, StageScorers, named_arguments, ranking_order, score_pool
from negexp.progress import progress_bar

# White space separates columns and lines, and NUL ends C strings. Only these characters and % are percent-encoded: ids
# stay readable, and different ids stay different.
ENCODED = re.compile(r"[\s%\x00-\x1f]")


@dataclass(frozen=True)
class TrecExport:
    """A split with the scorers of its candidates, see `rank_queries`. `depth`: candidates per query, None for all."""

    split: Split
    scorers: StageScorers
    config: EvaluationConfig
    depth: int | None

    def files(self, name: str, progress: str = "never") -> Iterator[tuple[str, bytes]]:
        """Yield the name and content of each file. Candidates have the order of `rank_queries`.

        `<name>-<protocol>-<task>.qrels` has the golds of each query; without a collection, each query has one gold.
        `<name>-<protocol>-<stage>-<task>.run` has the first `depth` candidates of each query. All copies of a gold are
        one document. Documents of a collection have their own ids.
        """
        ids = query_ids(self.split)
        stages = STAGES[:1] if self.scorers.classify is None else STAGES
        rounds = list(itertools.product(PROTOCOLS, possible_tasks(self.split)[0]))
        with progress_bar(len(rounds) * len(stages), "TREC files", "run", progress) as bar:
            for protocol, task in rounds:
                yield f"{name}-{protocol}-{task.name}.qrels", self._qrels(protocol, task, ids)
                for stage in stages:
                    yield f"{name}-{protocol}-{stage}-{task.name}.run", self._run(protocol, stage, task, ids)
                    bar.update()

    def _qrels(self, protocol: str, task: Task, ids: list[str]) -> bytes:
        """Return a qrels file with the queries in the order of the split."""
        names, texts = self._names(), [""] * len(ids)
        for pool in pools(self.split, task, protocol, np.arange(len(ids))):
            for row, *golds in zip(pool.query.tolist(), pool.gold_argument, pool.gold_grade, strict=True):
                found = zip(*(values.tolist() for values in golds), strict=True)
                texts[row] = "".join(f"{ids[row]} 0 {names[gold]} {grade}\n" for gold, grade in found if grade)
        return "".join(texts).encode()

    def _names(self) -> list[str]:
        """Return the ids of all arguments without white space, in the order of their numbers."""
        return [encoded(id_) for ids, _ in named_arguments(self.split).values() for id_ in ids]

    def _run(self, protocol: str, stage: str, task: Task, ids: list[str]) -> bytes:
        """Return a run file with the queries in the order of the split."""
        names = self._names()
        texts = [b""] * len(ids)
        for pool in pools(self.split, task, protocol, np.arange(len(ids))):
            for part in pool.parts(max(1, self.config.block_bytes // (8 * len(pool.text)))):
                for row, arguments, scores in self._ranked(part, stage):
                    found = zip(arguments[: self.depth].tolist(), scores[: self.depth].tolist(), strict=True)
                    texts[row] = run_lines(ids[row], [(names[argument], score) for argument, score in found], stage)
        return b"".join(texts)

    def _ranked(self, pool: Pool, stage: str) -> Iterator[tuple[int, Ints, np.ndarray]]:
        """Yield row, arguments (best first) and scores of each query of a pool.

        The first copy of a gold gets the number of the gold itself. Its other copies are omitted.
        """
        scorers = self.scorers if stage == "reranked" else self.scorers._replace(classify=None)
        scored = score_pool(pool, scorers, self.config.rerank_k)
        order = ranking_order(scored)
        allowed, gold, scores = (
            np.take_along_axis(values, order, axis=1) for values in (pool.allowed, scored.gold, scored.scores)
        )
        golds = np.take_along_axis(pool.gold_argument, np.maximum(gold, 0), axis=1)
        arguments = np.where(gold >= 0, golds, pool.argument[order])
        for query, row in enumerate(pool.query.tolist()):
            own = np.flatnonzero(allowed[query])
            own = own[np.sort(np.unique(arguments[query, own], return_index=True)[1])]  # copies of golds once
            yield row, arguments[query, own], listed_scores(scores[query, own], stage)


def query_ids(split: Split) -> list[str]:
    """Return the id of each pair (pairs,) without white space. Different ids stay different."""
    return [encoded(id_) for id_ in split.ids]


def encoded(id_: str) -> str:
    """Return an id without white space. Different ids stay different.

    >>> encoded("free speech/pro 1")
    'free%20speech/pro%201'
    """
    return ENCODED.sub(lambda found: quote(found[0], safe=""), id_)


def run_lines(query: str, found: Iterable[tuple[str, float]], stage: str) -> bytes:
    """Return the lines of a run file for one query: ids and scores of its candidates, best first."""
    lines = (f"{query} Q0 {id_} {rank} {score!r} negexp-{stage}\n" for rank, (id_, score) in enumerate(found, 1))
    return "".join(lines).encode()


def listed_scores(scores: NDArray[np.float64], stage: str) -> NDArray[np.float64] | NDArray[np.int64]:
    """Return the scores (candidates,) that a run file gives a ranked list, best first.

    Re-ranked lists mix combined scores and distances, so their scores count down the positions.
    """
    return strictly_decreasing(scores) if stage == "retrieval" else np.arange(len(scores), 0, -1)


def strictly_decreasing(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores (candidates,), best first, lowered so that they decrease strictly in single precision.

    trec_eval reads scores in single precision and breaks ties by document id. In negexp, ties count against the gold.
    So a score that would tie becomes the next smaller number. The other scores do not change.
    """
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    place = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # neighbours among the floats differ by 1
    steps = np.arange(len(scores))
    lowered = np.minimum.accumulate(place + steps) - steps
    below = np.where(lowered < 0, -lowered - 2**31, lowered).astype(np.int32).view(np.float32)
    return np.where(lowered < place, below.astype(np.float64), scores)
