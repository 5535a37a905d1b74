"""InfoNCE: softmax cross-entropy of each pair's counter among the candidates of its batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from negexp.components import option
from negexp.config import LossConfig
from negexp.model.bi_encoder import PairClassifier
from negexp.model.loss import Loss, TextBatch
from negexp.model.wrong_matches import WrongMatches


@dataclass
class InfoNCEOptions(LossConfig):
    """The temperature, and which candidates of a batch a pair's counter is compared with."""

    temperature: float = option("divides the cosine similarities", low=0.001)
    in_batch_counters: bool = option("true: the counters of the other pairs in the batch are negatives too")
    in_batch_points: bool = option("true: the points of the other pairs in the batch are negatives too")
    in_batch_negatives: bool = option("true: the negatives of the other pairs in the batch are negatives too")


class InfoNCE(Loss):
    """Mean over pairs of -log(e^g / (e^g + sum of w e^s)), g and s: cosine / temperature (van den Oord et al. 2018).

    g belongs to the pair's counter, each s to a negative that `TextBatch.allowed` does not forbid. The pair's own
    negatives always count, w is their weight (`TextBatch.weight`; 0: none was found). All other negatives have w = 1. A
    text in several columns counts once, first as the pair's own negative; the counter's text is never a negative.

    The similarity is the cosine also for embeddings that are not normalised. The index then searches in another order,
    so use `model.normalize=true`.
    """

    Options = InfoNCEOptions
    options: InfoNCEOptions

    def __init__(self, options: InfoNCEOptions) -> None:
        super().__init__(options)
        self.points_are_candidates = options.in_batch_points

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total` and `softmax`, which are equal."""
        query = F.normalize(batch.query.retrieval, dim=-1)  # (pairs, r)
        candidate = F.normalize(batch.candidate.retrieval, dim=-1)  # (columns, r)
        similarity = query @ candidate.T
        gold = similarity.gather(1, batch.positive[:, None])
        wrong = self._candidates(batch, similarity)
        wrong = wrong.once(batch.text[batch.positive], len(batch.text) + len(batch.query_text))
        logits = wrong.similarity / self.options.temperature + wrong.weight.log()
        logits = torch.cat([gold / self.options.temperature, logits.masked_fill(~wrong.shown, float("-inf"))], dim=1)
        softmax = (logits.logsumexp(1) - logits[:, 0]).mean()
        return {"total": softmax, "softmax": softmax}

    def _candidates(self, batch: TextBatch, similarity: Tensor) -> WrongMatches:
        """Return the negatives of each point among the candidates."""
        negatives, options = batch.negative.flatten(), self.options
        shown = torch.zeros_like(batch.text, dtype=torch.bool)  # (columns,) what is a negative of all pairs
        shown[batch.positive] = options.in_batch_counters
        shown[batch.point] = options.in_batch_points
        if options.in_batch_negatives:
            shown[negatives] = batch.weight.flatten() > 0
        own = torch.zeros_like(batch.allowed).scatter(1, batch.negative, batch.weight > 0)
        weight = torch.ones_like(similarity).scatter(1, batch.negative, batch.weight.to(similarity.dtype))
        weight = weight.masked_fill(~own, 1.0)
        return WrongMatches(similarity, batch.allowed & (shown | own), batch.text, own, weight)
