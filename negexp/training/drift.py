"""How far the embeddings have moved since the last refresh, in a fixed sample of pairs: `sampler.refresh.drift`.

The sample's points are embedded as queries and its counters as candidates, as for the search of neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from negexp.corpus import Split
from negexp.embedding import TextEncoder
from negexp.model import Role
from negexp.randomness import generator

Floats = NDArray[np.float32]

SAMPLED_PAIRS = 128  # enough for a mean, and little beside embedding all pairs


class Drift:
    """The sample, and its embeddings at the last refresh.

    Drift is half the squared distance between a text's embeddings then and now, relative to the squared length then,
    both summed over the sample. Of embeddings of length 1, it is the mean of 1 - cosine.

    Attributes
    ----------
    limit : `sampler.refresh.drift`.
    then : (texts, dim) the sample's embeddings at the last refresh, None before the first; part of every commit.
    """

    def __init__(self, limit: float, pairs: Split, encoder: TextEncoder, seed: int) -> None:
        self.limit = limit
        self.then: Floats | None = None
        size = min(SAMPLED_PAIRS, len(pairs))
        pair = np.sort(generator(seed, 0, "drift").choice(len(pairs), size, replace=False))
        self._texts: dict[Role, NDArray[np.int64]] = {"query": pairs.point[pair], "candidate": pairs.counter[pair]}
        self._encoder = encoder

    def check(self, due: bool) -> dict[str, float | None]:
        """Say whether to refresh, if a refresh is due or is the first one; if so, the next check starts here.

        Returns
        -------
        Columns of refreshes.csv: `drift` of the model as it is, None where it was not measured or is the first, and
        `refreshed`, 1 or 0.
        """
        if self.then is not None and not due:
            return {"drift": None, "refreshed": 0}
        parts = [self._encoder.embed_as(role, texts, "drift").retrieval for role, texts in self._texts.items()]
        now = np.concatenate([part.cpu().numpy() for part in parts]).astype(np.float32)
        drift = None if self.then is None else drift_between(self.then, now)
        if drift is not None and drift <= self.limit:
            return {"drift": drift, "refreshed": 0}
        self.then = now
        return {"drift": drift, "refreshed": 1}


def drift_between(then: Floats, now: Floats) -> float:
    """Return the drift between two embeddings (texts, dim) of the same texts; NaN if one is not finite.

    >>> drift_between(np.float32([[1, 0], [0, 1]]), np.float32([[1, 0], [1, 0]]))  # cosines 1 and 0
    0.5
    """
    before = then.astype(np.float64)
    squared = ((now - before) ** 2).sum()
    return float(squared / np.maximum(2 * (before**2).sum(), np.finfo(np.float64).tiny))
