"""Neighbours of points, and the negatives of pairs that are chosen among them or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Negatives:
    """The k negatives of some pairs; mined ones are nearest first.

    argument (pairs, k): numbers as in `Arguments`.
    neighbour_rank (pairs, k): rank among the other arguments of the tables in `sampler.candidates`, 1 = nearest;
    forbidden arguments count, the point itself does not; 0 for a random draw.
    weight (pairs, k): weight of each negative in the loss; 0 if none was found, and then `argument` has no meaning.
    distance (pairs, k): Euclidean distance from the point as a query, in the embeddings at the time of sampling; NaN if
    it was not computed.
    dropped (pairs, k): nearer arguments that are not forbidden, but that the mining policy did not take, without those
    that `sampler.exclude=[repeats]` leaves out; where none was found, all such arguments, near or far; 0 for a random
    draw, and in commits that do not know it.
    """

    argument: Ints
    neighbour_rank: Ints
    weight: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))  # empty: all 1
    distance: Floats = field(default_factory=lambda: np.empty(0))  # empty: all NaN
    dropped: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # empty: all 0

    def __post_init__(self) -> None:
        shape = self.argument.shape
        if self.weight.shape == (0,):
            object.__setattr__(self, "weight", np.ones(shape, dtype=np.float32))
        if self.distance.shape == (0,):
            object.__setattr__(self, "distance", np.full(shape, np.nan))
        if self.dropped.shape == (0,):
            object.__setattr__(self, "dropped", np.zeros(shape, dtype=np.int64))

    @property
    def mined(self) -> NDArray[np.bool_]:
        """Return whether each negative was mined rather than drawn at random (pairs, k)."""
        return self.neighbour_rank > 0

    @property
    def found(self) -> NDArray[np.bool_]:
        """Return whether there is a negative (pairs, k); a mining policy may find fewer than k."""
        return self.weight > 0

    @classmethod
    def join(cls, parts: Sequence[tuple[Ints, Negatives]]) -> Negatives:
        """Return the negatives of all pairs from parts: (positions of the pairs, negatives of these pairs)."""
        size = sum(len(place) for place, _ in parts)
        order = np.empty(size, dtype=np.int64)
        order[np.concatenate([place for place, _ in parts])] = np.arange(size)
        return cls(*(np.concatenate([getattr(part, one.name) for _, part in parts])[order] for one in fields(cls)))

    def beside(self, others: Negatives) -> Negatives:
        """Return these negatives, then other negatives of the same pairs (pairs, k + other k)."""
        both = ((getattr(self, one.name), getattr(others, one.name)) for one in fields(self))
        return Negatives(*(np.concatenate(values, axis=1) for values in both))


class Neighbours(NamedTuple):
    """The nearest arguments of some points, nearest first; ties in the order of argument numbers.

    pair (pairs,); argument, distance, rank (1 = nearest) and allowed (pairs, width). Distances are Euclidean, or with
    `sampler.source=bm25` minus the BM25 score. Shorter rows are filled up: `argument` is the pair's own point there,
    `rank` 0, `distance` infinite and `allowed` false.
    """

    pair: Ints
    argument: Ints
    distance: Floats
    rank: Ints
    allowed: NDArray[np.bool_]
