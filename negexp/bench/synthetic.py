"""Synthetic vectors and pairs, of any number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from negexp.corpus import Split
from negexp.randomness import generator


def clustered_vectors(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Return unit vectors (rows, dim) around random centres, eight vectors per centre."""
    rng = generator(seed, 0, "bench vectors")
    centres = rng.standard_normal((rows // 8 + 1, dim), dtype=np.float32)
    return _near(centres[rng.integers(0, len(centres), rows)], rng)


def synthetic_pairs(pairs: int, dim: int, seed: int) -> tuple[Split, NDArray[np.float32]]:
    """Return pairs and a unit vector for each text.

    Each debate has eight pairs, there are 15 themes, and some counters are copies of others. The vectors of a debate
    are around a centre of its own, so a gold is among its query's nearest, but seldom the nearest.
    """
    rows = np.arange(pairs)
    counter = pairs + rows
    copied = generator(seed, 0, "bench copies").random(pairs) < 1 / 8
    counter[copied] = pairs + (rows[copied] + 1) % pairs
    split = Split(
        ids=tuple(map(str, range(pairs))),
        point=rows,
        counter=counter,
        theme=rows * 15 // pairs,
        debate=rows // 8,
        stance=rows % 2,
    )
    rng = generator(seed, 0, "bench pairs")
    centres = rng.standard_normal((pairs // 8 + 1, dim), dtype=np.float32)
    return split, _near(np.tile(centres[rows // 8], (2, 1)), rng)


def _near(centres: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    vectors = centres + 0.9 * rng.standard_normal(centres.shape, dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
