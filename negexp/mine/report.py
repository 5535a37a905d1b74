"""What was mined, in numbers and in words: distances, scores, ranks, copies left out, and pairs with fewer than k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from negexp.mine.negatives import Scores
from negexp.sampling import Arguments, Negatives, NegativeSampler, SamplingRound
from negexp.tracking.ledger import dropped_statistics, ledger_statistics

Ints = NDArray[np.int64]

QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
SHOWN = {  # of the quantiles
    "positive_distance": "distance of the counter",
    "negative_distance": "distance of a negative",
    "distance_difference": "a negative's minus its counter's",
    "positive_score": "score of the counter",
    "negative_score": "score of a negative",
    "neighbour_rank": "rank of a mined negative",
}
ORIGINS = {"debate_share": "the pair's debate", "theme_share": "another debate of its theme"}


@dataclass(frozen=True)
class Mining:
    """A finished refresh: the round, the strategy, the negatives of all pairs, their ledger and their scores.

    index_recall: the share of neighbours that an approximate index found; None: it is exact, or was not searched.
    """

    round: SamplingRound
    sampler: NegativeSampler
    negatives: Negatives
    ledger: pd.DataFrame
    scores: Scores
    index_recall: float | None = None


def numbers_of(mining: Mining, rows: int) -> dict[str, Any]:
    """Return the numbers of report.json; `rows` is the number of rows of the file of negatives."""
    ledger, found, scores = mining.ledger, mining.negatives.found, mining.scores
    return {
        "pairs": mining.round.pairs,
        "negatives_per_pair": mining.round.num_negatives,
        "negatives": int(found.sum()),
        "rows": rows,
        **ledger_statistics(ledger),
        **dropped_statistics(mining.negatives),
        **({} if mining.index_recall is None else {"index_recall": mining.index_recall}),
        "copies": _copies(mining),
        "fewer": _fewer(mining),
        "quantiles": {
            "positive_distance": quantiles(mining.round.space.positive_distance),
            "negative_distance": quantiles(ledger["distance"].to_numpy()),
            "distance_difference": quantiles((ledger["distance"] - ledger["positive_distance"]).to_numpy()),
            "positive_score": quantiles(scores.counter),
            "negative_score": quantiles(scores.negative[found]),
            "neighbour_rank": quantiles(ledger["neighbour_rank"].dropna().to_numpy(dtype=np.float64)),
        },
    }


def quantiles(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Return mean and quantiles, interpolated linearly; None without values."""
    if not len(values):
        return None
    levels = np.quantile(values, list(QUANTILES.values()))
    return {"mean": float(np.mean(values)), **dict(zip(QUANTILES, map(float, levels), strict=True))}


def skipped_copies(round_: SamplingRound, negatives: Negatives) -> Ints:
    """Return how many copies are nearer than the farthest mined negative of each pair (pairs,).

    Copies are all forbidden arguments but the pair's own ones, see `_own`, and copies of its other negatives. Without
    `sampler.exclude=[duplicates,repeats]` they would have been candidates. The number follows from ranks: of the
    arguments up to the last negative, the pair's own ones, the other negatives, and those that the mining policy left
    out are subtracted.
    """
    mined = negatives.found & negatives.mined
    rank = np.where(mined, negatives.neighbour_rank, 0)
    pair, last = np.arange(round_.pairs), np.argmax(rank, axis=1)
    own = _own(round_.arguments)
    argument = np.where(mined[pair, last], negatives.argument[pair, last], 0)[:, None]
    distance, own_distance = (round_.distance(pair, some) for some in (argument, np.maximum(own, 0)))
    before = (own_distance < distance) | ((own_distance == distance) & (own < argument))
    own_before = (before & round_.is_candidate(own)).sum(axis=1)
    others = mined.sum(axis=1) - 1 + negatives.dropped[pair, last]
    skipped: Ints = np.where(mined.any(axis=1), rank[pair, last] - 1 - others - own_before, 0)
    return np.maximum(skipped, 0)  # two distances that are computed in two ways may differ in their last bit


def _own(arguments: Arguments) -> Ints:
    """Return the pairs' own arguments but the points (pairs, width), each once; the rest of a row is -1.

    The counter; in a collection, all golds of the query and the document that is the query itself.
    """
    collection = arguments.collection
    if collection is None:
        return arguments.number("counter", np.arange(arguments.pairs))[:, None]
    documents = np.sort(np.column_stack([*collection.golds.table(collection.query)[0].T, collection.itself]), axis=1)
    documents[:, 1:][documents[:, 1:] == documents[:, :-1]] = -1
    return np.where(documents < 0, -1, arguments.number("document", documents))


def _copies(mining: Mining) -> dict[str, Any]:
    """Return how many copies stood among the nearest, and their share of all that were looked at and not dropped."""
    skipped = skipped_copies(mining.round, mining.negatives)
    seen = int(skipped.sum()) + int(mining.ledger["mined"].sum())
    return {
        "skipped": int(skipped.sum()),
        "share": float(skipped.sum() / seen) if seen else 0.0,
        "pairs": int((skipped > 0).sum()),
    }


def _fewer(mining: Mining) -> dict[str, Any]:
    """Return how many pairs have fewer than k negatives, and what their other candidates are."""
    count = mining.negatives.found.sum(axis=1)
    pair = np.flatnonzero(count < mining.round.num_negatives)
    why = Counter(mining.sampler.policy.why_fewer(mining.round, pair))
    return {"pairs": len(pair), "without_negatives": int((count == 0).sum()), "why": dict(sorted(why.items()))}


def report_text(numbers: Mapping[str, Any], what: str, corpus: str) -> str:
    """Return the report as Markdown: `what` describes encoder and strategy, `corpus` the data."""
    rows = [
        f"| {SHOWN[name]} | {' | '.join(f'{value:.4g}' for value in values.values())} |"
        for name, values in numbers["quantiles"].items()
        if values is not None
    ]
    table = ["| | mean | " + " | ".join(QUANTILES) + " |", "| --- |" + " ---: |" * (1 + len(QUANTILES)), *rows]
    return "\n".join(
        [
            "# Mined negatives",
            "",
            f"{what}. {corpus}",
            "",
            *(f"* {line}" for line in summary(numbers)),
            "",
            *table,
            "",
            "![Distances of counters and negatives](distances.png)",
            "",
            "Distances are Euclidean, of retrieval embeddings. A rank counts all other arguments; the nearest is 1.",
            "",
        ]
    )


def summary(numbers: Mapping[str, Any]) -> list[str]:
    """Return the numbers that come first, a sentence each."""
    pairs, k, fewer, copies = numbers["pairs"], numbers["negatives_per_pair"], numbers["fewer"], numbers["copies"]
    lines = [
        f"{numbers['negatives']} negatives of {pairs} pairs, {_mined(numbers['mined_share'])}; {numbers['rows']} rows"
    ]
    if fewer["pairs"]:
        why = "; ".join(f"in {count} the other candidates are {reason}" for reason, count in fewer["why"].items())
        none = f", {fewer['without_negatives']} of them none" if fewer["without_negatives"] else ""
        lines.append(f"{fewer['pairs']} pairs ({fewer['pairs'] / pairs:.1%}) have fewer than {k}{none}: {why}")
    else:
        lines.append(f"every pair has {k}")
    if "index_recall" in numbers:
        lines.append(f"the index found {numbers['index_recall']:.1%} of the nearest, in a sample of its searches")
    lines.append(f"{numbers['nearer_share']:.1%} of the negatives are nearer to the point than its own counter")
    lines.append(
        f"{copies['skipped']} copies of a pair's own texts or other negatives, or counters of its point's copies, were "
        f"left out: {copies['share']:.1%} of the nearest, in {copies['pairs']} pairs"
    )
    if numbers["dropped_share"]:
        lines.append(
            f"for {numbers['dropped_share']:.1%} of the mined negatives, the policy left out nearer candidates"
        )
    places = [f"{numbers[key]:.1%} from {place}" for key, place in ORIGINS.items() if numbers[key] is not None]
    if places:
        lines.append("negatives by origin: " + ", ".join(places))
    return lines


def _mined(share: float) -> str:
    if share == 1:
        return "all mined"
    return f"{share:.1%} of them mined, the others drawn at random" if share else "all drawn at random"
