"""Pairs that share a text into different batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def keep_copies_apart(batches: Sequence[Ints], texts: Ints, size: int, rng: np.random.Generator) -> list[Ints]:
    """Return the batches, in which no two pairs share a text any more.

    A pair that shares a text with an earlier pair of its batch moves to the first batch that has room and none of its
    two texts, or to a new batch. Batches without such pairs stay as they are. No batch grows beyond its planned size
    and `size`. If new batches are opened, at most (pairs - 1) / size + d + 1 batches result, where d is the largest
    number of pairs that share a text with one pair. Then the order of the batches is drawn anew, so that the new ones
    do not all come last.

    Parameters
    ----------
    batches
        Each pair once.
    texts
        (pairs, 2) identities of point and counter of each pair.
    size
        Number of pairs of a full batch.
    rng
        Draws the order of the batches, only if there are new ones.

    >>> texts = np.array([[0, 1], [0, 2], [3, 4]])
    >>> keep_copies_apart([np.array([0, 1]), np.array([2])], texts, 2, np.random.default_rng(0))
    [array([0]), array([2, 1])]
    """
    pair = np.concatenate(batches)
    batch = np.repeat(np.arange(len(batches)), [len(one) for one in batches])
    stays = _first_with_its_texts(batch, texts[pair])
    if stays.all():
        return list(batches)
    moved = pair[~stays]
    places = _Places(batches, size)
    for number, members in enumerate(np.split(pair[stays], np.searchsorted(batch[stays], range(1, len(batches))))):
        places.fill(number, members, texts, moved)
    for one in moved.tolist():
        places.move(one, set(texts[one].tolist()))
    result = [np.array(members, dtype=np.int64) for members in places.members]
    if len(result) == len(batches):
        return result
    return [result[number] for number in rng.permutation(len(result))]


def _first_with_its_texts(batch: Ints, texts: Ints) -> NDArray[np.bool_]:
    """Return whether no earlier pair of the same batch has one of a pair's texts; batch (pairs,), texts (pairs, 2)."""
    values, code = np.unique(texts, return_inverse=True)
    key = batch[:, None] * len(values) + code.reshape(texts.shape)
    _, first, occurrence = np.unique(key, return_index=True, return_inverse=True)
    earliest = first[occurrence].reshape(texts.shape) // 2
    alone: NDArray[np.bool_] = (earliest == np.arange(len(batch))[:, None]).all(axis=1)
    return alone


class _Places:
    """Batches that are being filled, with their room and the texts that they hold."""

    def __init__(self, batches: Sequence[Ints], size: int) -> None:
        self.size = size
        self.most = [max(size, len(batch)) for batch in batches]  # pairs that a batch may have
        self.members: list[list[int]] = [[] for _ in batches]
        self.holding: dict[int, set[int]] = defaultdict(set)  # text -> batches, for the texts of moved pairs
        self.first: dict[int, int] = defaultdict(int)  # text -> all batches before this one are full or hold the text

    def fill(self, number: int, members: Ints, texts: Ints, moved: Ints) -> None:
        """Put the pairs that stay into their batch."""
        self.members[number] = members.tolist()
        own = texts[members]
        for text in own[np.isin(own, texts[moved])].tolist():
            self.holding[text].add(number)

    def move(self, pair: int, texts: set[int]) -> None:
        """Put a pair into the first batch with room and without its texts, or into a new one."""
        number = max(self.first[text] for text in texts)
        while number < len(self.members):
            full = len(self.members[number]) == self.most[number]
            closed = {text for text in texts if full or number in self.holding[text]}
            if not closed:
                break
            for text in closed:  # the search for the next pair with this text begins behind this batch
                self.first[text] += self.first[text] == number
            number += 1
        else:
            self.members.append([])
            self.most.append(self.size)
        self.members[number].append(pair)
        for text in texts:
            self.holding[text].add(number)
