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
from negexp.evaluation.names import named_arguments
from negexp.evaluation.one_pass import OnePass
from negexp.evaluation.pools import PROTOCOLS, STAGES, Cell, possible_tasks
from negexp.evaluation.ranking import CellRanks, StageScorers, ranked_blocks
from negexp.evaluation.second_stage import Shortlist, classify_nearest
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
        with progress_bar(len(rounds), "TREC files", "task", progress) as bar:
            for protocol, task in rounds:
                one_pass = OnePass(self.split, self.scorers.retrieval, [Cell(protocol, task)], None)
                lines = {stage: [b""] * len(ids) for stage in ("qrels", *stages)}
                for (ranks,) in ranked_blocks(one_pass, None, self.config.block_bytes):
                    self._add(lines, ranks, one_pass, ids)
                yield f"{name}-{protocol}-{task.name}.qrels", b"".join(lines.pop("qrels"))
                for stage, texts in lines.items():
                    yield f"{name}-{protocol}-{stage}-{task.name}.run", b"".join(texts)
                bar.update()

    def _add(self, lines: dict[str, list[bytes]], ranks: CellRanks, one_pass: OnePass, ids: list[str]) -> None:
        """Add the lines of some queries to those of all rows."""
        names, golds = self._names(), one_pass.candidates.golds(ranks.row)
        for query, row in enumerate(ranks.row.tolist()):
            found = zip(golds.argument[query].tolist(), ranks.cell.grade[query].tolist(), strict=True)
            judged = "".join(f"{ids[row]} 0 {names[gold]} {grade}\n" for gold, grade in found if grade)
            lines["qrels"][row] = judged.encode()
        slot = ranks.cell.nearest.slot
        own = np.take_along_axis(golds.argument, np.maximum(slot, 0), axis=1)
        # the first copy of a gold gets the number of the gold itself
        argument = np.where(slot >= 0, own, one_pass.candidates.argument[ranks.cell.nearest.column])
        for stage in lines.keys() & STAGES:
            order = self._order(ranks, stage)
            for query, row in enumerate(ranks.row.tolist()):
                place = order[query][ranks.cell.nearest.there[query, order[query]]]
                place = place[np.sort(np.unique(argument[query, place], return_index=True)[1])]  # copies of golds once
                scores = listed_scores(ranks.cell.nearest.score[query, place], stage)[: self.depth].tolist()
                listed = [names[one] for one in argument[query, place[: self.depth]].tolist()]
                lines[stage][row] = run_lines(ids[row], zip(listed, scores, strict=True), stage)

    def _order(self, ranks: CellRanks, stage: str) -> Ints:
        """Return all places (queries, columns) of the nearest in the order of a stage."""
        nearest, classify, k = ranks.cell.nearest, self.scorers.reranker, self.config.rerank_k
        order = np.tile(np.arange(nearest.score.shape[1]), (len(ranks.row), 1))
        if stage == "reranked" and classify is not None:
            first, text = nearest.take(np.s_[:, :k]), ranks.text[:, :k]
            (scores,) = classify_nearest(classify, self.split.point[ranks.row], [text], [first.there])
            lists = Shortlist.of(ranks.cell._replace(nearest=first), text, scores)
            combined = self.scorers.combination(lists.classifier, lists.retrieval)
            order[:, :k] = np.argsort(-combined, axis=1, kind="stable")
        return order

    def _names(self) -> list[str]:
        """Return the ids of all arguments without white space, in the order of their numbers."""
        return [encoded(id_) for ids, _ in named_arguments(self.split).values() for id_ in ids]


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
