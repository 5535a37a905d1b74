"""Neighbours by BM25, as in DPR (Karpukhin et al. 2020, arXiv 2004.04906). A module of its own: it imports scipy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from negexp.config import SamplerConfig
from negexp.largest import largest_columns
from negexp.lexical import BM25
from negexp.sampling.arguments import Arguments
from negexp.sampling.source import Floats, Ints, Source, blocks
from negexp.shared import Latest
from negexp.signals import check_stop

BLOCK_SCORES = 2**23  # scores computed at a time
KEPT_NEIGHBOURS = 2**25  # neighbours that are kept for later refreshes, 16 bytes each

_latest: Latest[BM25] = Latest(1)


class LexicalSource:
    """The arguments with the highest BM25 scores for a pair's point; distance = minus the score.

    The texts do not change while training, so the neighbours of a point are searched once per process, and again only
    if a later search goes deeper, or if they are too many to be kept.
    """

    def __init__(self, arguments: Arguments, bm25: BM25) -> None:
        self._arguments, self._bm25 = arguments, bm25
        self._kept: dict[tuple[str, int], tuple[Floats, Ints]] = {}  # (table, pair) -> distances and rows
        self._room = KEPT_NEIGHBOURS

    @cached_property
    def positive_distance(self) -> Floats:
        """Return the distance of each point to its own counter (pairs,)."""
        pair = np.arange(self._arguments.pairs)
        return self.distance(pair, self._arguments.number("counter", pair[:, None]))[:, 0]

    def distance(self, pair: Ints, argument: Ints) -> Floats:
        """Return minus the BM25 scores (pairs, k) of arguments (pairs, k) for the pairs' points."""
        texts = self._arguments.text
        query = np.broadcast_to(texts[pair][:, None], argument.shape)
        return -self._bm25.paired(query.ravel(), texts[argument].ravel()).reshape(argument.shape)

    def similarity(self, pair: Ints, argument: Ints) -> Floats:
        """Return the BM25 scores (pairs, k) of arguments (pairs, k) for the pairs' points."""
        return -self.distance(pair, argument)

    def search(self, table: str, pair: Ints, k: int) -> tuple[Floats, Ints]:
        """Return distances and rows (pairs, k) of the nearest in a table, nearest first; ties in the order of rows."""
        distance, row = np.empty((len(pair), k)), np.empty((len(pair), k), dtype=np.int64)
        missing = []
        for number, one in enumerate(pair.tolist()):
            kept = self._kept.get((table, one))
            if kept is None or len(kept[1]) < k:
                missing.append(number)
            else:
                distance[number], row[number] = kept[0][:k], kept[1][:k]
        size = self._arguments.size(table)
        depth = min(1 << (k - 1).bit_length(), size)  # a little deeper, for the next search
        texts, column = np.unique(self._arguments.text[self._arguments.table(table)], return_inverse=True)
        todo = np.array(missing, dtype=np.int64)
        for some in blocks(len(todo), BLOCK_SCORES // size):
            check_stop()
            place = todo[some]
            scores = self._bm25.scores(self._arguments.text[pair[place]], texts)[:, column]
            rows = largest_columns(scores, depth)
            distances = -np.take_along_axis(scores, rows, axis=1)
            distance[place], row[place] = distances[:, :k], rows[:, :k]
            self._keep(table, pair[place], distances, rows)
        return distance, row

    def _keep(self, table: str, pair: Ints, distances: Floats, rows: Ints) -> None:
        for one, found in zip(pair.tolist(), zip(distances, rows, strict=True), strict=True):
            earlier = self._kept.get((table, one))
            more = rows.shape[1] - (0 if earlier is None else len(earlier[1]))
            if more <= self._room:
                self._kept[table, one] = found
                self._room -= more


def mining_source(options: SamplerConfig, texts: Sequence[str], arguments: Arguments) -> Source | None:
    """Return the source of `sampler.source` that lasts for the whole run; None: the embeddings of each refresh.

    texts: all texts of the corpus. The documents are the distinct texts of the training pairs and of the collection.
    """
    if options.source == "embeddings":
        return None
    rows = np.unique(arguments.text)
    key = tuple(texts), rows.tobytes(), repr(options.bm25)
    return LexicalSource(arguments, _latest.get(key, lambda: BM25(texts, rows, options.bm25)))
