"""The formats of mined negatives: pairs to rows, and rows to the bytes of a file.

Columns named `label`, `labels`, `score` and `scores` are what sentence-transformers' trainer takes as the target of the
loss; all others are texts, in the order in which the loss gets them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from negexp.mine.negatives import MinedPair, MinedQuery, mined_queries

Row = dict[str, Any]


def rows_of(name: str, pairs: Sequence[MinedPair], k: int) -> list[Row]:
    """Return the rows of a format.

    A pair without a negative has no row, and with `n-tuple` and `n-tuple-scores` neither has a pair with fewer than k.
    A format of lists has one row for all pairs of a query: trainers take other rows' texts as negatives, so a gold of
    the query must not stand in another one.
    """
    if name in OF_QUERIES:
        return [OF_QUERIES[name](query) for query in mined_queries(pairs) if query.negatives]
    enough = k if name.startswith("n-tuple") else 1
    return [row for pair in pairs if len(pair.negatives) >= enough for row in OF_PAIRS[name](pair)]


def _triplets(pair: MinedPair) -> Iterator[Row]:
    for negative in pair.negatives:
        yield {"anchor": pair.point, "positive": pair.counter, "negative": negative}


def _tuple(pair: MinedPair) -> Iterator[Row]:
    numbered = {f"negative_{number}": negative for number, negative in enumerate(pair.negatives, start=1)}
    yield {"anchor": pair.point, "positive": pair.counter, **numbered}


def _tuple_with_scores(pair: MinedPair) -> Iterator[Row]:
    for row in _tuple(pair):
        yield {**row, "scores": [pair.counter_score, *pair.negative_scores]}


def _labeled_pairs(pair: MinedPair) -> Iterator[Row]:
    yield {"anchor": pair.point, "document": pair.counter, "label": 1}
    for negative in pair.negatives:
        yield {"anchor": pair.point, "document": negative, "label": 0}


def _labeled_list(query: MinedQuery) -> Row:
    labels = [1] * len(query.counters) + [0] * len(query.negatives)
    return {"anchor": query.point, "documents": [*query.counters, *query.negatives], "labels": labels}


def _flagembedding(query: MinedQuery) -> Row:
    texts = {"pos": list(query.counters), "neg": list(query.negatives)}
    scores = {"pos_scores": list(query.counters.values()), "neg_scores": list(query.negatives.values())}
    return {"query": query.point, **texts, **scores}


OF_PAIRS: dict[str, Callable[[MinedPair], Iterator[Row]]] = {
    "triplet": _triplets,
    "n-tuple": _tuple,
    "n-tuple-scores": _tuple_with_scores,
    "labeled-pair": _labeled_pairs,
}
OF_QUERIES: dict[str, Callable[[MinedQuery], Row]] = {
    "labeled-list": _labeled_list,
    "flagembedding": _flagembedding,
}
FORMATS = (*OF_PAIRS, *OF_QUERIES)  # the choices of `format`, `negexp.config.commands.NEGATIVE_FORMATS`


def jsonl(rows: Sequence[Row]) -> bytes:
    """Return a line of JSON for each row, in UTF-8.

    >>> print(jsonl([{"anchor": "é", "label": 1}]).decode(), end="")
    {"anchor": "é", "label": 1}
    """
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def parquet(rows: Sequence[Row]) -> bytes:
    """Return the rows as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


FILES: dict[str, Callable[[Sequence[Row]], bytes]] = {"jsonl": jsonl, "parquet": parquet}
