"""The base class of batch plans, which decide which training pairs share a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from negexp.config import BatchConfig
from negexp.errors import InputError
from negexp.sampling.apart import keep_copies_apart
from negexp.sampling.arguments import Arguments
from negexp.sampling.source import EmbeddingSpace, Ints


@dataclass(frozen=True)
class BatchRound:
    """The start of an epoch, when all its batches are made.

    Attributes
    ----------
    arguments : the training pairs' arguments; `arguments.debate[:pairs]` has the debate of each pair.
    embed : returns their retrieval embeddings at the start of the epoch; a plan asks for `space`.
    size : `trainer.batch_size`.
    rng : the generator for all random draws.
    """

    arguments: Arguments
    embed: Callable[[], EmbeddingSpace]
    size: int
    rng: np.random.Generator

    @cached_property
    def space(self) -> EmbeddingSpace:
        """Return the embeddings. They are computed for the first plan that asks, so other plans cost no embedding."""
        return self.embed()

    @property
    def pairs(self) -> int:
        """Return the number of training pairs."""
        return self.arguments.pairs


class BatchPlan(ABC):
    """Base of all batch plans: a subclass distributes the pairs in `compose`.

    The base class checks that each pair stands in exactly one batch. With `batch.separate_copies`, it then moves pairs
    that share a text with another pair of their batch.
    """

    Options: type[BatchConfig] = BatchConfig
    column: ClassVar[str | None] = None  # metadata that the plan needs: theme, debate or stance

    def __init__(self, options: BatchConfig) -> None:
        self.options = options

    @abstractmethod
    def compose(self, round_: BatchRound) -> list[Ints]:
        """Return the batches: for each, the numbers of its pairs."""

    def check_corpus(self, arguments: Arguments) -> None:
        """Raise `InputError` if the corpus lacks the metadata that the plan needs."""
        if self.column is not None and getattr(arguments, self.column) is None:
            raise InputError(
                f"batch={self.options.name}: needs a {self.column} for every pair, and the corpus has no column "
                f"{self.column}; give the column, or choose batch=shuffled or batch=neighbours"
            )

    def batches(self, round_: BatchRound) -> list[Ints]:
        """Return the batches of an epoch, checked, with copies apart."""
        batches = self.compose(round_)
        together = np.sort(np.concatenate([*batches, np.empty(0, dtype=np.int64)]))
        if not np.array_equal(together, np.arange(round_.pairs)) or not all(map(len, batches)):
            raise ValueError(f"{type(self).__name__}.compose must return each pair exactly once, and no empty batch")
        if not self.options.separate_copies:
            return batches
        texts = round_.arguments.pair_texts  # (pairs, 2)
        return keep_copies_apart(batches, texts, round_.size, round_.rng)


def batch_statistics(batches: Sequence[Ints], arguments: Arguments) -> dict[str, float]:
    """Return columns for metrics.csv.

    `batch_size`: mean number of pairs in a batch. `batch_debate_share`: share of the pairs with another pair of their
    debate in their batch, only if the corpus has debates.
    """
    size = arguments.pairs / len(batches)
    if arguments.debate is None:
        return {"batch_size": size}
    pair = np.concatenate(batches)
    batch = np.repeat(np.arange(len(batches)), [len(one) for one in batches])
    places = np.stack([batch, arguments.debate[pair]], axis=1)
    _, place, pairs = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    return {"batch_size": size, "batch_debate_share": float((pairs[place.ravel()] > 1).mean())}
