"""The lists that a cross-encoder learns from: a pair's counter and negatives from the nearest arguments."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from negexp.pair_tokens import PairReader
from negexp.randomness import generator
from negexp.sampling import Arguments, Negatives

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingLists:
    """The nearest arguments of each training pair (pairs, depth), from which every epoch draws its negatives."""

    reader: PairReader
    arguments: Arguments
    nearest: Negatives
    negatives: int
    seed: int

    def draw(self, epoch: int) -> Negatives:
        """Return distinct negatives of all pairs, drawn uniformly among their nearest arguments; weight 0: none left.

        Where there are fewer than `negatives`, all are drawn. The draws depend on (seed, epoch) only.
        """
        near, rng = self.nearest, generator(self.seed, epoch, "re-ranker negatives")
        place = np.argsort(np.where(near.found, rng.random(near.found.shape), 2.0), axis=1)[:, : self.negatives]
        return Negatives(*(np.take_along_axis(getattr(near, one.name), place, axis=1) for one in fields(near)))

    def loss(self, pair: Ints, negatives: Negatives) -> Tensor:
        """Return the mean of -log softmax(logits)[counter] over the lists of some pairs (ListNet's top one)."""
        counter = self.arguments.number("counter", pair)
        listed = np.column_stack([counter, negatives.argument[pair]])  # (pairs, 1 + negatives)
        points = np.repeat(self.arguments.text[self.arguments.number("point", pair)], listed.shape[1])
        logits = self.reader.logits(points, self.arguments.text[listed].ravel()).view(listed.shape)
        absent = np.column_stack([np.zeros(len(pair), dtype=bool), ~negatives.found[pair]])
        to_device = self.reader.runtime.to_device
        logits = logits.masked_fill(to_device(torch.from_numpy(absent)), float("-inf"))
        return F.cross_entropy(logits, to_device(torch.zeros(len(pair), dtype=torch.long)))
