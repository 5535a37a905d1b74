"""What a sampling strategy is: it decides which negatives the pairs get, and when they are refreshed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negexp.components import Options, build, component, option
from negexp.errors import InputError
from negexp.sampling.forbidden import Forbidden
from negexp.sampling.policy import MiningOptions, MiningPolicy
from negexp.sampling.round import TABLES_OF, Ints, Negatives, SamplingRound


@dataclass
class RefreshOptions(Options):
    """When embeddings, index and negatives are made anew."""

    epochs: int = option("refresh at the start of every so many epochs", low=1)
    steps: int | None = option("refresh every so many optimizer steps as well, counted from each epoch's start", low=1)

    def check(self) -> None:
        """Raise `InputError` when steps are counted in epochs that are to keep their negatives."""
        if self.steps is not None and self.epochs > 1:
            raise InputError(
                f"sampler.refresh.steps={self.steps}: refreshes within an epoch, sampler.refresh.epochs={self.epochs} "
                "skips whole epochs; give one of them"
            )


@dataclass
class SamplerOptions(Options):
    """The keys that all strategies share."""

    name: str
    num_negatives: int = option("k negatives a pair: the k nearest", low=1)
    candidates: str = option("the arguments to choose from", choices=tuple(TABLES_OF))
    exclude: list[str] = option(
        "never a negative; self: the pair's own arguments, duplicates: copies of them, and counters of copies",
        choices=("self", "duplicates"),
    )
    refresh_every: int = option("epochs that keep their negatives; another name of refresh.epochs", low=1)
    refresh: RefreshOptions = option("when negatives are made anew")
    mining: MiningOptions = component("mining", "which neighbours count as hard")

    def check(self) -> None:
        """Raise `InputError` when a pair's own texts could become its negatives."""
        if "self" not in self.exclude:
            raise InputError(
                f"sampler.exclude={self.exclude}: must contain self (a pair's own texts are no negatives)"
            )


class NegativeSampler(ABC):
    """Base of all strategies: a subclass says in `choose` which negatives the pairs get.

    The base class checks what `choose` returns, so that a strategy cannot leak a gold counter.
    """

    Options: type[SamplerOptions] = SamplerOptions

    def __init__(self, options: SamplerOptions) -> None:
        self.options = options
        self.policy: MiningPolicy = build("mining", options.mining)

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return the probability that a pair's negatives are drawn at random after `progress` epochs.

        `validation` holds the monitored value after each of these epochs.
        """
        return 0.0

    def refreshes(self, epoch: int) -> bool:
        """Return whether negatives are sampled anew at the start of this epoch; otherwise the last ones stay."""
        return epoch % self.options.refresh.epochs == 0

    def sampled_epoch(self, epoch: int) -> int:
        """Return the epoch in which the negatives of an epoch were sampled: the last one that refreshed them."""
        while epoch > 0 and not self.refreshes(epoch):
            epoch -= 1
        return epoch

    @abstractmethod
    def choose(self, round_: SamplingRound) -> Negatives:
        """Return the negatives of all pairs, made by `mine` and `round_.draw`."""

    def mine(self, round_: SamplingRound, pair: Ints) -> Negatives:
        """Return the hard negatives of the given pairs, by the mining policy."""
        return round_.mine(pair, self.policy)

    def statistics(self) -> dict[str, float]:
        """Return what is worth a column in refreshes.csv beside the ledger's statistics."""
        return {}

    def check_candidates(self, forbidden: Forbidden) -> None:
        """Raise `InputError` when some pair has fewer allowed arguments than `num_negatives`."""
        tables, wanted = TABLES_OF[self.options.candidates], self.options.num_negatives
        allowed = sum(forbidden.pairs - forbidden.count(table) for table in tables)
        fewest = int(np.min(allowed))
        if fewest < wanted:
            raise InputError(
                f"sampler.num_negatives={wanted}: training pair {int(np.argmin(allowed))} has only {fewest} allowed "
                f"candidates (sampler.candidates={self.options.candidates}); lower it or give more pairs"
            )

    def sample(self, round_: SamplingRound) -> Negatives:
        """Return the negatives of all pairs (pairs, num_negatives), checked."""
        negatives = self.choose(round_)
        self._check_shapes(negatives, round_)
        argument, found = negatives.argument, negatives.found
        low, high = round_.span
        name = f"{type(self).__name__}.choose"
        if (((argument < low) | (argument >= high)) & found).any():
            raise ValueError(
                f"{name} returned an argument outside of {low} .. {high - 1} "
                f"(sampler.candidates={self.options.candidates})"
            )
        ordered = np.sort(np.where(found, argument, -1 - np.arange(argument.shape[1])), axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError(f"{name} returned one argument twice for a pair")
        if (round_.forbidden.contains(np.arange(round_.pairs)[:, None], argument) & found).any():
            raise ValueError(f"{name} returned a forbidden argument")
        return round_.measured(negatives) if np.isnan(negatives.distance[found]).any() else negatives

    def _check_shapes(self, negatives: Negatives, round_: SamplingRound) -> None:
        expected = (round_.pairs, round_.num_negatives)
        for field, values in vars(negatives).items():
            if values.shape != expected:
                raise ValueError(f"{type(self).__name__}.choose returned {field} {values.shape}, not {expected}")
