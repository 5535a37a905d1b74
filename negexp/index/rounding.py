"""Bounds on the error of scores q.x - |x|^2 / 2 that are computed in low precision, and products that keep them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

ROUNDING = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}  # relative error of one operation, twice its bound
EQUAL_NORMS = {torch.float32: 1e-6, torch.bfloat16: 1e-4}  # relative spread of norms that counts as none
SAFETY = 1.02  # for the rounding of the bounds themselves
ROWS = 2**11  # rows converted at a time


def rounding_error(exact: Tensor, rounded: Tensor) -> float:
    """Return the largest distance between a vector (rows, dim) and its rounded copy."""
    if rounded.dtype == exact.dtype:
        return 0.0
    parts = zip(exact.split(ROWS), rounded.split(ROWS), strict=True)
    return max(float(torch.linalg.vector_norm(a.double() - b.cpu().double(), dim=1).max()) for a, b in parts)


def score_error(exact: Tensor, rounded: Tensor, longest: float, vector_error: float) -> Tensor:
    """Return (queries,) by how much a score can be wrong, beside the scores of float64 distances.

    Errors come from rounding vectors, queries, sums and results, from underflow of tiny numbers, and from the float64
    distances that scores are compared with.

    Parameters
    ----------
    exact, rounded
        The queries (queries, dim), and the same in the precision of the products.
    longest
        The largest norm of a vector x.
    vector_error
        The `rounding_error` of the vectors.
    """
    norms = torch.linalg.vector_norm(exact.double(), dim=1)
    query_error = torch.linalg.vector_norm(exact.double() - rounded.cpu().double(), dim=1)
    factors = query_error * longest + norms * vector_error
    sums = (exact.shape[1] + 4) * ROUNDING[torch.float32] * (norms * longest + longest**2)
    results = ROUNDING[rounded.dtype] * norms * longest
    rest = exact.shape[1] * (2.0**-126 * (1 + norms + longest) + 2.0**-52 * (norms + longest) ** 2)
    error: Tensor = SAFETY * (factors + sums + results + rest)
    return error


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable TF32 and autocast, which round the factors of float32 products."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
