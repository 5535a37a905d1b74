"""The largest numbers of each row of a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def largest_columns(scores: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return the columns (rows, k) with the highest scores, best first. Among equals the lower column is first.

    >>> largest_columns(np.array([[1.0, 3.0, 3.0, 2.0]]), 3).tolist()
    [[1, 2, 3]]
    """
    if k < scores.shape[1]:
        kth = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
        # take all columns above the k-th score, then the lowest columns equal to it
        above = scores > kth
        equal = scores == kth
        room = k - above.sum(axis=1, keepdims=True)
        chosen = above | (equal & (np.cumsum(equal, axis=1) <= room))
        columns = np.nonzero(chosen)[1].reshape(len(scores), k)
    else:
        columns = np.broadcast_to(np.arange(k), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
