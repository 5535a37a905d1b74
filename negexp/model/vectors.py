"""The two embeddings of a text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Vectors:
    """Embeddings of texts in one role: retrieval (texts, r), which the index searches, and pooled (texts, h)."""

    retrieval: Tensor
    pooled: Tensor

    def rows(self, rows: Tensor | slice) -> Vectors:
        """Return the embeddings of some rows, in the shape of `rows`."""
        return Vectors(self.retrieval[rows], self.pooled[rows])

    def detach(self) -> Vectors:
        """Return the same embeddings without gradients."""
        return Vectors(self.retrieval.detach(), self.pooled.detach())

    def expand_as(self, other: Vectors) -> Vectors:
        """Return (pairs, .) repeated to the shape (pairs, k, .) of `other`."""
        return Vectors(self.retrieval[:, None].expand_as(other.retrieval), self.pooled[:, None].expand_as(other.pooled))
