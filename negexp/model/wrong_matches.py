"""The wrong matches of each pair in a softmax: similarities, masks and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from negexp.model.loss import TextBatch


@dataclass(frozen=True)
class WrongMatches:
    """Texts that are compared with one text of each pair: its point or its counter.

    Attributes
    ----------
    similarity : (pairs, m) to the point, or the counter, of each pair.
    shown : (pairs, m) whether the text is a wrong match of the pair.
    text : (m,) or (pairs, m) the text, as in `TextBatch.text`.
    own : (pairs, m) whether the text is one of the pair's own negatives.
    bias : (pairs, m) what is added to the logit: the logarithm of a weight.
    """

    similarity: Tensor
    shown: Tensor
    text: Tensor
    own: Tensor
    bias: Tensor

    @classmethod
    def in_batch(cls, similarity: Tensor, shown: Tensor, text: Tensor) -> WrongMatches:
        """Return wrong matches that are no pair's own negatives and have weight 1."""
        return cls(similarity, shown, text, torch.zeros_like(shown), torch.zeros_like(similarity))

    @classmethod
    def own_negatives(cls, batch: TextBatch, similarity: Tensor) -> WrongMatches:
        """Return the pairs' own negatives, with their weights, for similarities (pairs, k)."""
        found = batch.weight > 0
        shown = batch.allowed.gather(1, batch.negative) & found
        bias = batch.weight.to(similarity.dtype).masked_fill(~found, 1.0).log()
        return cls(similarity, shown, batch.text[batch.negative], found, bias)

    @classmethod
    def candidates(
        cls, batch: TextBatch, similarity: Tensor, *, counters: bool = True, points: bool = True, negatives: bool = True
    ) -> WrongMatches:
        """Return the candidates of the points, for similarities (pairs, columns).

        A pair's own negatives are shown, with their weights, and the other pairs' counters, points and negatives as the
        flags say.
        """
        own = cls.own_negatives(batch, similarity.gather(1, batch.negative))
        shown = torch.zeros_like(batch.text, dtype=torch.bool)  # (columns,) what all pairs are shown
        shown[batch.positive], shown[batch.point] = counters, points
        if negatives:
            shown[batch.negative.flatten()] = own.own.flatten()
        is_own = torch.zeros_like(batch.allowed).scatter(1, batch.negative, own.own)
        bias = torch.zeros_like(similarity).scatter(1, batch.negative, own.bias)
        return cls(similarity, batch.allowed & (shown | is_own), batch.text, is_own, bias)

    @classmethod
    def join(cls, parts: list[WrongMatches]) -> WrongMatches:
        """Return the wrong matches of all parts, side by side."""
        return cls(*(torch.cat([vars(part)[name] for part in parts], dim=-1) for name in vars(parts[0])))

    def once(self, gold: Tensor, texts: int) -> WrongMatches:
        """Show each text once for each pair, and the gold's text (pairs,) not at all.

        Of several columns with one text, a pair's own negative comes first, then the first column. `texts` is
        `TextBatch.texts`.
        """
        shown = self.shown & (self.text != gold[:, None])
        columns = shown.shape[1]
        last = 2 * columns
        order = torch.arange(columns, device=shown.device) + columns * ~self.own
        order = order.masked_fill(~shown, last)  # (pairs, m)
        text = self.text.expand_as(order)
        first = order.new_full((len(shown), texts), last).scatter_reduce(1, text, order, "amin")
        return replace(self, shown=shown & (first.gather(1, text) == order))

    def logits(self, temperature: Tensor | float, beta: float = 0.0) -> Tensor:
        """Return the logits (pairs, m), -inf where a text is not shown.

        With beta above 0, a text with logit s gets the weight e^(beta s), divided by the mean of these weights over all
        that the pair is shown (Robinson et al. 2021, arXiv 2010.04592, without debiasing). The weights have gradients.
        """
        logits = self.similarity / temperature
        weight = self.bias
        if beta > 0:
            importance = beta * logits
            total = self._logsumexp(importance + self.bias)
            weight = self.bias + importance - total + self._logsumexp(self.bias)
        return (logits + weight).masked_fill(~self.shown, float("-inf"))

    def _logsumexp(self, values: Tensor) -> Tensor:
        """Return the logarithm of the summed weights (pairs, 1); finite also without a wrong match."""
        return values.masked_fill(~self.shown, torch.finfo(values.dtype).min).logsumexp(1, keepdim=True)


def cross_entropy(gold: Tensor, wrong: Tensor) -> Tensor:
    """Return the mean of -log(e^g / (sum of e^gold + sum of e^wrong)), g: the first of the gold logits (pairs, .)."""
    return (torch.cat([gold, wrong], dim=1).logsumexp(1) - gold[:, 0]).mean()
