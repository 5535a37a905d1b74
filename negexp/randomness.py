"""Generators derived from (seed, epoch, purpose). No code draws from a global generator."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, epoch: int, purpose: str) -> np.random.Generator:
    """Return the generator for a purpose in an epoch. Equal arguments give equal draws."""
    return np.random.default_rng(derive(seed, epoch, purpose))


def derive(seed: int, epoch: int, purpose: str) -> int:
    """Return a 63-bit seed for (seed, epoch, purpose), for generators of other libraries than NumPy.

    >>> derive(0, 3, "batches")
    3283571222902212594
    >>> derive(0, 3, "batches") == derive(0, 3, "negatives")
    False
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
