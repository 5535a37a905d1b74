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
    vectors = centres[rng.integers(0, len(centres), rows)] + 0.9 * rng.standard_normal((rows, dim), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def synthetic_pairs(pairs: int, dim: int, seed: int) -> tuple[Split, NDArray[np.float32]]:
    """Return pairs and a unit vector for each text.

    Each debate has eight pairs, there are 15 themes, and some counters are copies of others.
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
    return split, clustered_vectors(2 * pairs, dim, seed)
