"""The ledger: the negatives of every pair in an epoch, and their distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from negexp.sampling import Arguments, Negatives
from negexp.sampling.arguments import ORIGINS

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LEDGER_COLUMNS = (  # those of version 0.1 end with `origin`
    *("pair", "negative", "source", "row", "mined", "distance", "positive_distance", "neighbour_rank", "gold_copy"),
    *("origin", "sampled_epoch", "dropped"),
)


def build_ledger(
    arguments: Arguments, negatives: Negatives, positive_distance: Floats, sampled_epoch: int
) -> pd.DataFrame:
    """Return one row per pair and negative. There is no row where no negative was found.

    Distances belong to the embeddings of this refresh. Ranks belong to `sampled_epoch`, in which the negatives were
    sampled.

    Parameters
    ----------
    negatives
        The negatives of all pairs, with distances.
    positive_distance
        (pairs,) distance between each point and its own counter.

    Returns
    -------
    DataFrame
        `pair`, `negative` (0 .. k-1), `source` (`point`, `counter`; with a collection also `document`, which is the
        counter of no training pair), `row` (of a document: in the collection), `mined`, `distance`,
        `positive_distance` (Euclidean),
        `neighbour_rank` (1 = nearest argument except the point itself; null for random draws), `gold_copy` (the text is
        a copy of the gold counter), `origin` (`debate` or `theme` if the negative shares it with the pair, else
        `elsewhere`; null where the corpus has neither), `sampled_epoch` and `dropped` (number of nearer arguments that
        are not forbidden, but that the mining policy did not take; null for random draws).
    """
    import pandas as pd

    pair, place = np.nonzero(negatives.found)
    argument, rank = negatives.argument[pair, place], negatives.neighbour_rank[pair, place]
    source, row = arguments.source(argument)
    own_counter = arguments.number("counter", pair)
    return pd.DataFrame(
        {
            "pair": pair,
            "negative": place,
            "source": source,
            "row": row,
            "mined": rank > 0,
            "distance": negatives.distance[pair, place],
            "positive_distance": positive_distance[pair],
            "neighbour_rank": pd.Series(rank, dtype="Int64").mask(rank == 0),
            "gold_copy": arguments.identity[argument] == arguments.identity[own_counter],
            "origin": _origin(arguments, pair, argument),
            "sampled_epoch": sampled_epoch,
            "dropped": pd.Series(negatives.dropped[pair, place], dtype="Int64").mask(rank == 0),
        }
    )


def _origin(arguments: Arguments, pair: Ints, argument: Ints) -> pd.Series:
    import pandas as pd

    origin = np.array(ORIGINS, dtype=object)[arguments.origin(pair, argument)]
    known = arguments.theme is not None or arguments.debate is not None
    return pd.Series(origin if known else None, index=range(len(pair)), dtype="str")


def ledger_statistics(ledger: pd.DataFrame) -> dict[str, float | None]:
    """Return the statistics of an epoch's negatives for metrics.csv.

    `nearer_share`: negatives that are nearer to their point than its own counter. `debate_share`: negatives from the
    pair's debate. `theme_share`: negatives from another debate of the pair's theme.
    """
    return {
        "mined_share": _mean(ledger["mined"]),
        "point_share": _mean(ledger["source"] == "point"),
        "negative_distance": _mean(ledger["distance"]),
        "positive_distance": _mean(ledger["positive_distance"]),
        "nearer_share": _mean(ledger["distance"] < ledger["positive_distance"]),
        "neighbour_rank": _mean(ledger["neighbour_rank"]),
        "gold_copy_share": _mean(ledger["gold_copy"]),
        "debate_share": _mean(ledger["origin"].eq("debate").where(ledger["origin"].notna())),
        "theme_share": _mean(ledger["origin"].eq("theme").where(ledger["origin"].notna())),
    }


def dropped_statistics(negatives: Negatives) -> dict[str, float | None]:
    """Return what the mining policy dropped, over all negatives that were mined or should have been.

    `dropped`: mean of `Negatives.dropped`, also where no negative was found. `dropped_share`: those above 0.
    """
    dropped = negatives.dropped[negatives.mined | ~negatives.found]
    if not len(dropped):
        return {"dropped": None, "dropped_share": 0.0}
    return {"dropped": float(dropped.mean()), "dropped_share": float((dropped > 0).mean())}


def replaced_share(negatives: Negatives, previous: Negatives | None) -> float | None:
    """Return the share of negatives that the pair did not have before. None without earlier negatives."""
    if previous is None:
        return None
    same = (negatives.argument[:, :, None] == previous.argument[:, None, :]) & previous.found[:, None, :]
    new = 1.0 - same.any(axis=2)[negatives.found]
    return float(new.mean()) if len(new) else None


def _mean(values: pd.Series) -> float | None:
    """Return the mean of the values that are not null; None when all are null."""
    known = values.dropna()
    return float(known.mean()) if len(known) else None
