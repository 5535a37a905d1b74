"""Find equal rows of a matrix, by hashes instead of comparing all pairs of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

HASHED_BYTES = 2**20  # size of a block of rows, small enough for the processor's cache


@dataclass(frozen=True)
class Copies:
    """Groups of equal rows.

    group: (rows,) group of each row. member: (rows,) rows sorted by group, then ascending.
    start: (groups + 1,) first place of each group in `member`.
    """

    group: Ints
    member: Ints
    start: Ints

    @property
    def all_distinct(self) -> bool:
        """Return whether all rows are distinct; then each row is a group, with the row's number."""
        return len(self.start) == len(self.group) + 1

    def distinct(self, vectors: np.ndarray) -> np.ndarray:
        """Return each distinct vector once, sorted by group; the matrix itself if all rows are distinct."""
        return np.ascontiguousarray(vectors) if self.all_distinct else vectors[self.member[self.start[:-1]]]

    def expand(self, groups: Ints, at_most: int) -> tuple[Ints, Ints]:
        """Return all (i, row) with row in groups[i], sorted; of each group, the lowest `at_most` rows."""
        if self.all_distinct:
            return np.arange(len(groups)), groups
        first = self.start[groups]
        counts = np.minimum(self.start[groups + 1] - first, at_most)
        i = np.repeat(np.arange(len(groups)), counts)
        within = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
        return i, self.member[first[i] + within]


def find_copies(vectors: np.ndarray, block_bytes: int) -> Copies:
    """Group equal rows (rows, dim): hash the bits of each row, then compare rows with the same hash.

    If different rows have the same hash, the later one becomes a group of its own. The result stays correct, but copies
    of that row are not found. No such collision has been seen.

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
