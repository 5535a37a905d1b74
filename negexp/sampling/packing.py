"""Groups of pairs into batches of a size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def shuffled_groups(code: Ints, rng: np.random.Generator) -> list[Ints]:
    """Return the pairs of each code (pairs,): the groups in random order, and the pairs of each in random order."""
    order = rng.permutation(len(code))
    _, group, sizes = np.unique(code, return_inverse=True, return_counts=True)
    sequence = rng.permutation(len(sizes))
    place = np.argsort(sequence)  # of each group in the sequence
    ordered = order[np.argsort(place[group[order]], kind="stable")]
    return np.split(ordered, np.cumsum(sizes[sequence])[:-1])


def cut(groups: Sequence[Ints], size: int) -> list[Ints]:
    """Return the groups; one with more than `size` pairs is cut into the fewest parts that fit, nearly equal ones."""
    return [part for group in groups for part in np.array_split(group, -(-len(group) // size))]


def pack(groups: Sequence[Ints], size: int, rng: np.random.Generator) -> list[Ints]:
    """Return batches of whole groups, in random order.

    Each group, of at most `size` pairs, goes into the first batch with room (first-fit bin packing). No batch has more
    than `size` pairs, and at most one of them has size / 2 or fewer.
    """
    room = np.full(len(groups), size)
    batches: list[list[Ints]] = []
    for group in groups:
        number = int(np.argmax(room[: len(batches) + 1] >= len(group)))
        if number == len(batches):
            batches.append([])
        batches[number].append(group)
        room[number] -= len(group)
    return [np.concatenate(batches[number]) for number in rng.permutation(len(batches))]
