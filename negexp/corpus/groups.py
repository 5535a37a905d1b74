"""Groups of dependent pairs. A module of its own: scipy would slow down the start of every command."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from negexp.corpus.arguments import Ints, Split


def dependent_groups(split: Split) -> Ints:
    """Return a group for each pair (pairs,), the same for pairs of one debate and of debates that share a text.

    Queries of one group are not independent observations: a debate that is listed under three themes is one group.
    Documents of a collection do not connect pairs, because many queries may have the same gold.

    Here the first and the third pair have the same counter:

    >>> debates, themes, stances = np.array([0, 1, 2]), None, None
    >>> dependent_groups(Split(("a", "b", "c"), np.array([0, 2, 4]), np.array([1, 3, 1]), themes, debates, stances))
    array([0, 1, 0])
    """
    rows = np.arange(len(split))
    debate = rows if split.debate is None else np.unique(split.debate, return_inverse=True)[1]
    counter = split.counter_identity if split.collection is None else split.point_identity
    text = np.unique(np.stack([split.point_identity, counter]), return_inverse=True)[1].reshape(2, -1) + len(split)
    links = (np.concatenate([debate, debate]), text.ravel())
    size = int(text.max()) + 1
    graph = coo_array((np.ones(2 * len(split), dtype=np.int8), links), shape=(size, size))
    component = connected_components(graph, directed=False)[1]
    return np.unique(component[debate], return_inverse=True)[1]
