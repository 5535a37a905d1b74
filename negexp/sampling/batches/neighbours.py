"""Pairs that are near each other in the current embeddings together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from negexp.sampling.batch_plan import BatchPlan, BatchRound
from negexp.sampling.round import Ints

Floats = NDArray[np.float32]

POWER_STEPS = 3  # more: directions nearer to the first principal one, and more similar from epoch to epoch


class Neighbours(BatchPlan):
    """Balanced clusters of the pairs' embeddings, so that in-batch negatives are hard.

    The pairs are halved again and again, at the median along a direction in which their vectors differ much, until a
    part fits into a batch: a principal component tree (Sproull 1991, Refinements to nearest-neighbor searching in
    k-dimensional trees). Batches of clustered queries come from TAS-B (Hofstätter et al. 2021, arXiv 2104.06967). A
    pair's vector is the sum of its point's embedding as a query and of its counter's as a candidate.

    The sizes of batches differ by at most one. Costs O(n log n); draws from `round_.rng` alone.
    """

    def compose(self, round_: BatchRound) -> list[Ints]:
        """Draw the directions, and halve the pairs along them."""
        order = round_.rng.permutation(round_.pairs)  # so that equal vectors share a batch at random
        vectors = (round_.space.query + round_.space.candidate["counter"])[order]
        batches: list[Ints] = []
        parts = [(order, vectors, -(-round_.pairs // round_.size))]  # pairs, their vectors, number of batches
        while parts:
            pair, vectors, number = parts.pop()
            if number == 1:
                batches.append(pair)
                continue
            first = number // 2
            cut = len(pair) // number * first + min(len(pair) % number, first)
            ranked = np.argsort(vectors @ spread_direction(vectors, round_.rng), kind="stable")
            lower, upper = ranked[:cut], ranked[cut:]
            parts += [(pair[lower], vectors[lower], first), (pair[upper], vectors[upper], number - first)]
        return [batches[number] for number in round_.rng.permutation(len(batches))]


def spread_direction(vectors: Floats, rng: np.random.Generator) -> Floats:
    """Return a random direction (dim,) in which vectors (n, dim) differ much.

    It is C^s g, scaled, where C is the covariance of the vectors, s is POWER_STEPS and g is normal: the power method
    for the first principal component, stopped early.
    """
    direction: Floats = rng.standard_normal(vectors.shape[1:]).astype(np.float32)
    for _ in range(POWER_STEPS):
        along: Floats = vectors @ direction
        product: Floats = (along - along.mean()) @ vectors
        length = np.float32(np.linalg.norm(product))
        if length == 0:  # the vectors are all the same
            break
        direction = product / length
    return direction
