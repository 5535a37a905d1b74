"""Scores of the pair classifier for re-ranking: many pairs of few texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from negexp.model.bi_encoder import COUNTER, NO_COUNTER, PairClassifier
from negexp.scratch import scratch

CACHE_BYTES = 2**22  # size of a block of differences, small enough for the processor's cache


class PairScores:
    """Log-odds of P(counter | point, candidate), for rows of embedding tables.

    The logits are a sum of a term for each text and a term for the absolute differences. So the text terms are
    computed once per text, and only the difference term once per pair. LayerNorm mixes all features: with it, the whole
    classifier is computed for each pair.

    Parameters
    ----------
    query, candidate
        Retrieval (rows, r) and pooled (rows, h) embeddings of the texts in both roles; the same table twice with a
        shared encoder.
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
        self.difference_weights = [third[2] for third in thirds]
        self.query_term, self.candidate_term = bias.expand(len(query[0])), bias.new_zeros(len(candidate[0]))  # (rows,)
        for own, other, (point, counter, _) in zip(self.query, self.candidate, thirds, strict=True):
            self.query_term = self.query_term + classifier.activation(own) @ point
            self.candidate_term = self.candidate_term + classifier.activation(other) @ counter

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
            log_odds: Tensor = logits[..., COUNTER] - logits[..., NO_COUNTER]
            return log_odds
        scores = self.query_term[points][:, None] + self.candidate_term[candidates]
        for query, candidate, weight in zip(self.query, self.candidate, self.difference_weights, strict=True):
            shape = (candidates.numel(), candidate.shape[1])
            difference = scratch("pair differences", shape, candidate.dtype, candidate.device)
            torch.index_select(candidate, 0, candidates.flatten(), out=difference)
            difference = difference.view(*candidates.shape, -1).sub_(query[points][:, None]).abs_()  # (points, k, dim)
            scores = scores + self.classifier.activation(difference) @ weight
        return scores
