"""The pair classifier's opinion of many pairs of few texts, as re-ranking asks for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from negexp.model.bi_encoder import PairClassifier
from negexp.model.losses import COUNTER, NO_COUNTER

CACHE_BYTES = 2**21  # of differences at a time: few enough to stay in the processor's cache


class PairScores:
    """Log-odds of P(counter | point, candidate), for rows of embedding tables.

    The classifier is linear in all but the absolute differences, so what it says of a text alone is computed once a
    text, and only the differences once a pair. With LayerNorm, which ties all features together, it is asked in full.

    Parameters
    ----------
    query, candidate
        Retrieval (rows, r) and pooled (rows, h) embeddings of the texts in both roles; a shared encoder's are the same.
    """

    def __init__(
        self, classifier: PairClassifier, query: tuple[Tensor, Tensor], candidate: tuple[Tensor, Tensor]
    ) -> None:
        self.classifier, self.tables = classifier, (query, candidate)
        self.separable = isinstance(classifier.layer_norm, nn.Identity)
        shared = all(one is other for one, other in zip(query, candidate, strict=True))
        self.query = torch.cat(classifier.used(*query), dim=1)
        self.candidate = self.query if shared else torch.cat(classifier.used(*candidate), dim=1)
        weight = (classifier.linear.weight[COUNTER] - classifier.linear.weight[NO_COUNTER]).detach()
        bias = (classifier.linear.bias[COUNTER] - classifier.linear.bias[NO_COUNTER]).detach()
        thirds = [part.chunk(3) for part in weight.split([3 * part.shape[1] for part in classifier.used(*query)])]
        point, other, self.difference = (torch.cat(part) for part in zip(*thirds, strict=True))
        activation = classifier.activation
        self.of_query = activation(self.query) @ point + bias  # (rows,)
        self.of_candidate = activation(self.candidate) @ other  # (rows,)

    def __call__(self, points: Tensor, candidates: Tensor) -> Tensor:
        """Return log-odds (points, k) of candidates (points, k) of points (points,), all rows of the tables."""
        block = max(1, CACHE_BYTES // (4 * candidates.shape[1] * self.query.shape[1]))
        parts = zip(points.split(block), candidates.split(block), strict=True)
        return torch.cat([self._block(*part) for part in parts]) if len(points) else candidates.float()

    def _block(self, points: Tensor, candidates: Tensor) -> Tensor:
        if not self.separable:
            (r_query, h_query), (r_candidate, h_candidate) = self.tables
            own = points[:, None].expand_as(candidates)
            logits = self.classifier(r_query[own], h_query[own], r_candidate[candidates], h_candidate[candidates])
            opinion: Tensor = logits[..., COUNTER] - logits[..., NO_COUNTER]
            return opinion
        others = self.candidate.index_select(0, candidates.flatten()).view(*candidates.shape, -1)
        own = self.query[points][:, None]  # (points, 1, r + h)
        apart = self.classifier.activation(others.sub_(own).abs_()) @ self.difference
        opinions: Tensor = apart + self.of_query[points][:, None] + self.of_candidate[candidates]
        return opinions
