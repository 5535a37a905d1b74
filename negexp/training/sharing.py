"""Ranks of a split by all processes of a run."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from negexp.evaluation.pools import PROTOCOLS, STAGES, TASKS
from negexp.world import World

if TYPE_CHECKING:
    import pandas as pd


def shared_ranks(
    rank: Callable[[np.ndarray], pd.DataFrame], queries: np.ndarray, ids: Sequence[str], world: World
) -> pd.DataFrame:
    """Return the table of ranks of some queries as one process gives it; each process ranks a share.

    rank: rows of the split (queries,) -> the ranks of these queries. ids: of all rows of the split.
    """
    if world.size == 1:
        return rank(queries)
    import pandas as pd  # here, so that a search starts without it

    table = rank(queries[list(world.share(len(queries)))])
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    parts = [pd.read_parquet(io.BytesIO(data)) for data in world.gather_bytes(buffer.getvalue())]
    whole = pd.concat(parts, ignore_index=True).astype(table.dtypes)
    order = {"protocol": PROTOCOLS, "task": [task.name for task in TASKS], "stage": STAGES, "query": ids}
    places = [whole[column].map({name: place for place, name in enumerate(names)}) for column, names in order.items()]
    return whole.iloc[np.lexsort([place.to_numpy() for place in reversed(places)])].reset_index(drop=True)
