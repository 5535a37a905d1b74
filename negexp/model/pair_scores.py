"""The pair classifier's opinion of many pairs of few texts, as re-ranking asks for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from negexp.model.bi_encoder import COUNTER, NO_COUNTER, PairClassifier
from negexp.scratch import scratch

CACHE_BYTES = 2**22  # of differences at a time: few enough to stay in the processor's cache


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
        self.query, self.candidate = classifier.used(*query), classifier.used(*candidate)
        self.width = sum(part.shape[1] for part in self.query)
        weight = (classifier.linear.weight[COUNTER] - classifier.linear.weight[NO_COUNTER]).detach()
        bias = (classifier.linear.bias[COUNTER] - classifier.linear.bias[NO_COUNTER]).detach()
        thirds = [part.chunk(3) for part in weight.split([3 * part.shape[1] for part in self.query])]
        self.difference = [third[2] for third in thirds]
        self.of_query, self.of_candidate = bias.expand(len(query[0])), bias.new_zeros(len(candidate[0]))  # (rows,)
        for own, other, (point, counter, _) in zip(self.query, self.candidate, thirds, strict=True):
            self.of_query = self.of_query + classifier.activation(own) @ point
            self.of_candidate = self.of_candidate + classifier.activation(other) @ counter

    def __call__(self, points: Tensor, candidates: Tensor) -> Tensor:
        """Return log-odds (points, k) of candidates (points, k) of points (points,), all rows of the tables."""
        block = max(1, CACHE_BYTES // (4 * candidates.shape[1] * self.width))
        parts = zip(points.split(block), candidates.split(block), strict=True)
        return torch.cat([self._block(*part) for part in parts]) if len(points) else candidates.float()

    def _block(self, points: Tensor, candidates: Tensor) -> Tensor:
        if not self.separable:
            (r_query, h_query), (r_candidate, h_candidate) = self.tables
            own = points[:, None].expand_as(candidates)
            logits = self.classifier(r_query[own], h_query[own], r_candidate[candidates], h_candidate[candidates])
            opinion: Tensor = logits[..., COUNTER] - logits[..., NO_COUNTER]
            return opinion
        opinions = self.of_query[points][:, None] + self.of_candidate[candidates]
        for query, candidate, weight in zip(self.query, self.candidate, self.difference, strict=True):
            apart = scratch("apart", (candidates.numel(), candidate.shape[1]), candidate.dtype, candidate.device)
            torch.index_select(candidate, 0, candidates.flatten(), out=apart)
            apart = apart.view(*candidates.shape, -1).sub_(query[points][:, None]).abs_()  # (points, k, dim)
            opinions = opinions + self.classifier.activation(apart) @ weight
        return opinions
