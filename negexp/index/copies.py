"""Equal rows of a matrix, found without comparing everything with everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

HASHED_BYTES = 2**20  # at a time, so that they stay in the processor's cache


@dataclass(frozen=True)
class Copies:
    """Which rows are equal to which.

    group: (rows,) number of each row's distinct vector. member: (rows,) the rows by group, ascending within one; start:
    (groups + 1,) where each group begins in it.
    """

    group: Ints
    member: Ints
    start: Ints

    @property
    def none(self) -> bool:
        """Return whether all rows are distinct; then each row's group is its own number."""
        return len(self.start) == len(self.group) + 1

    def distinct(self, vectors: np.ndarray) -> np.ndarray:
        """Return each distinct vector once, by group; the matrix itself where all are."""
        return np.ascontiguousarray(vectors) if self.none else vectors[self.member[self.start[:-1]]]

    def expand(self, groups: Ints, at_most: int) -> tuple[Ints, Ints]:
        """Return all (i, row) where row is a member of groups[i], the lowest `at_most` of each group, by i and row."""
        if self.none:
            return np.arange(len(groups)), groups
        first = self.start[groups]
        counts = np.minimum(self.start[groups + 1] - first, at_most)
        i = np.repeat(np.arange(len(groups)), counts)
        within = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
        return i, self.member[first[i] + within]


def find_copies(vectors: np.ndarray, block_bytes: int) -> Copies:
    """Group equal rows (rows, dim), by hashes of their bits and a comparison of what has one hash.

    Rows whose hashes collide though they differ stay apart from all that have that hash: correct, and never seen.

    >>> copies = find_copies(np.float32([[1, 2], [3, 4], [1, 2]]), block_bytes=2**20)
    >>> bool(copies.group[0] == copies.group[2]), bool(copies.group[0] == copies.group[1])
    (True, False)
    """
    hashes = _hashes(np.ascontiguousarray(vectors), block_bytes)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    rows = np.arange(len(vectors))
    suspect = np.flatnonzero(first[group] != rows)
    collided = suspect[(vectors[suspect] != vectors[first[group[suspect]]]).any(axis=1)]
    if len(collided) == len(suspect):
        return Copies(rows, rows, np.arange(len(vectors) + 1))
    group[collided] = len(first) + np.arange(len(collided))
    member = np.argsort(group, kind="stable")
    start = np.searchsorted(group[member], np.arange(group.max() + 2))
    return Copies(group, member, start)


def _hashes(vectors: np.ndarray, block_bytes: int) -> NDArray[np.uint64]:
    words = vectors.view(np.uint32)
    odd = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(words), dtype=np.uint64)
    block = max(1, min(block_bytes, HASHED_BYTES) // (8 * max(1, words.shape[1])))
    for start in range(0, len(words), block):
        np.matmul(words[start : start + block].astype(np.uint64), odd, out=hashes[start : start + block])
    return hashes
