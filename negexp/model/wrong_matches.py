"""The wrong matches of each pair in a softmax: similarities, masks and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class WrongMatches:
    """Texts that are compared with one text of each pair.

    Attributes
    ----------
    similarity : (pairs, m) to the point, or to the counter, of each pair.
    shown : (pairs, m) whether the text is a wrong match of the pair.
    text : (m,) the text, as in `TextBatch.text`.
    own : (pairs, m) whether the text is one of the pair's own negatives.
    weight : (pairs, m) times that the text counts.
    """

    similarity: Tensor
    shown: Tensor
    text: Tensor
    own: Tensor
    weight: Tensor

    @classmethod
    def in_batch(cls, similarity: Tensor, shown: Tensor, text: Tensor) -> WrongMatches:
        """Return wrong matches that are no pair's own negatives and count once."""
        return cls(similarity, shown, text, torch.zeros_like(shown), torch.ones_like(similarity))

    @classmethod
    def join(cls, parts: list[WrongMatches]) -> WrongMatches:
        """Return the wrong matches of all parts, side by side."""
        return cls(*(torch.cat([vars(part)[name] for part in parts], dim=-1) for name in vars(parts[0])))

    def once(self, gold: Tensor, texts: int) -> WrongMatches:
        """Show each text once for each pair, and the gold's text (pairs,) not at all.

        Of several columns with one text, a pair's own negative comes first, then the first column. `texts` is above all
        numbers in `text`.
        """
        shown = self.shown & (self.text != gold[:, None])
        pairs, columns = shown.shape
        last = 2 * columns
        order = torch.arange(columns, device=shown.device) + columns * ~self.own
        order = order.masked_fill(~shown, last)  # (pairs, m)
        text = self.text.expand_as(order)
        first = order.new_full((pairs, texts), last).scatter_reduce(1, text, order, "amin")
        return replace(self, shown=shown & (first.gather(1, text) == order))
