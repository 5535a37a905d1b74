"""The ledger: which negatives every pair had in an epoch, and how near they were."""

from __future__ import annotations

import numpy as np
import pandas as pd

from negexp.corpus import Split
from negexp.sampling import Negatives


def build_ledger(
    train: Split,
    negatives: Negatives,
    points: np.ndarray,
    candidate_points: np.ndarray,
    counters: np.ndarray,
    sampled_epoch: int,
) -> pd.DataFrame:
    """Return a row per pair and negative.

    Distances are of the embeddings given, those at the start of the epoch; ranks are of `sampled_epoch`, in which the
    negatives were sampled.

    Parameters
    ----------
    points
        Retrieval embeddings of the points as queries (pairs, dim).
    candidate_points, counters
        Retrieval embeddings of both tables as candidates (pairs, dim).

    Returns
    -------
    DataFrame
        `pair`, `negative` (0 .. k-1), `source`, `row`, `mined`, `distance`, `positive_distance` (Euclidean),
        `neighbour_rank` (1 = nearest of all but the point itself; null for random draws), `gold_copy` (its text is the
        gold counter's), `origin` (`debate`, `theme`, `elsewhere`: what it shares with the pair; null where the
        corpus names neither) and `sampled_epoch`.
    """
    pairs, k = negatives.argument.shape
    pair = np.repeat(np.arange(pairs), k)
    argument = negatives.argument.ravel()
    is_counter = argument >= pairs
    row = np.where(is_counter, argument - pairs, argument)
    query = points.astype(np.float64)
    negative = np.where(is_counter[:, None], counters[row], candidate_points[row]).astype(np.float64)
    rank = negatives.neighbour_rank.ravel()
    return pd.DataFrame(
        {
            "pair": pair,
            "negative": np.tile(np.arange(k), pairs),
            "source": np.where(is_counter, "counter", "point"),
            "row": row,
            "mined": negatives.mined.ravel(),
            "distance": np.linalg.norm(query[pair] - negative, axis=1),
            "positive_distance": np.linalg.norm(query - counters.astype(np.float64), axis=1)[pair],
            "neighbour_rank": pd.Series(rank, dtype="Int64").mask(rank == 0),
            "gold_copy": np.where(is_counter, train.counter_identity[row], train.point_identity[row])
            == train.counter_identity[pair],
            "origin": _origin(train, pair, row),
            "sampled_epoch": sampled_epoch,
        }
    )


def _origin(train: Split, pair: np.ndarray, row: np.ndarray) -> pd.Series:
    origin = np.full(len(pair), "elsewhere", dtype=object)
    for name, codes in (("theme", train.theme), ("debate", train.debate)):
        if codes is not None:
            origin[codes[pair] == codes[row]] = name
    known = train.theme is not None or train.debate is not None
    return pd.Series(origin if known else None, index=range(len(pair)), dtype="str")


def ledger_statistics(ledger: pd.DataFrame) -> dict[str, float | None]:
    """Return an epoch's negative statistics for metrics.csv.

    `nearer_share` is the share of negatives that are nearer to their point than its own counter. `debate_share` are
    from the pair's own debate, `theme_share` from its theme but another debate, the rest from elsewhere.
    """
    return {
        "mined_share": float(ledger["mined"].mean()),
        "point_share": float((ledger["source"] == "point").mean()),
        "negative_distance": float(ledger["distance"].mean()),
        "positive_distance": float(ledger["positive_distance"].mean()),
        "nearer_share": float((ledger["distance"] < ledger["positive_distance"]).mean()),
        "neighbour_rank": _mean(ledger["neighbour_rank"]),
        "gold_copy_share": float(ledger["gold_copy"].mean()),
        "debate_share": _mean(ledger["origin"].eq("debate").where(ledger["origin"].notna())),
        "theme_share": _mean(ledger["origin"].eq("theme").where(ledger["origin"].notna())),
    }


def replaced_share(negatives: Negatives, previous: Negatives | None) -> float | None:
    """Return the share of negatives that the pair did not have in the epoch before; null in the first."""
    if previous is None:
        return None
    kept = (negatives.argument[:, :, None] == previous.argument[:, None, :]).any(axis=2)
    return float(1 - kept.mean())


def _mean(values: pd.Series) -> float | None:
    """Return the mean of what is not null; null when nothing is."""
    known = values.dropna()
    return float(known.mean()) if len(known) else None
