"""The base class of sampling strategies, which choose the negatives of the pairs and when to refresh them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from negexp.components import build
from negexp.config import SamplerConfig
from negexp.errors import InputError
from negexp.sampling.forbidden import Forbidden, first_of_each_text
from negexp.sampling.negatives import Negatives
from negexp.sampling.policy import MiningPolicy
from negexp.sampling.round import Ints, SamplingRound

log = logging.getLogger("negexp")


class NegativeSampler(ABC):
    """Base of all strategies: a subclass chooses the negatives of the pairs in `choose`.

    The base class checks the result of `choose`, so that a strategy cannot use a gold counter as a negative.
    """

    Options: type[SamplerConfig] = SamplerConfig
    mines: bool = True  # false: the mining policy is never asked

    def __init__(self, options: SamplerConfig) -> None:
        self.options = options
        self.policy: MiningPolicy = build("mining", options.mining)

    def random_rate(self, progress: float, validation: Sequence[float] = ()) -> float:
        """Return the probability that a pair's negatives are drawn at random after `progress` epochs.

        `validation` holds the monitored value of each of these epochs.
        """
        return 0.0

    def refreshes(self, epoch: int) -> bool:
        """Return whether negatives are sampled at the start of this epoch; if not, the previous ones stay."""
        return epoch % self.options.refresh.epochs == 0

    def sampled_epoch(self, epoch: int) -> int:
        """Return the epoch in which the negatives used in an epoch were sampled."""
        while epoch > 0 and not self.refreshes(epoch):
            epoch -= 1
        return epoch

    @abstractmethod
    def choose(self, round_: SamplingRound) -> Negatives:
        """Return the negatives of all pairs, from `mine` and `round_.draw`."""

    def mine(self, round_: SamplingRound, pair: Ints) -> Negatives:
        """Return the hard negatives of the given pairs, by the mining policy."""
        return round_.mine(pair, self.policy)

    def statistics(self) -> dict[str, float]:
        """Return further columns for refreshes.csv, beside the ledger's statistics."""
        return {}

    def check_candidates(self, forbidden: Forbidden) -> None:
        """Raise `InputError` if a pair has fewer allowed arguments than `num_negatives`, or none for the policy."""
        required = self.options.num_negatives
        tables = forbidden.arguments.candidate_tables(self.options.candidates)
        needed = max(required, self.policy.needs() if self.mines else 0)
        allowed = forbidden.allowed(tables, at_least=needed)
        fewest = int(np.min(allowed))
        if fewest < required:
            remedy = "lower it or give more pairs" if fewest else "give more pairs"
            raise InputError(
                f"sampler.num_negatives={required}: training pair {int(np.argmin(allowed))} has only {fewest} allowed "
                f"candidates (sampler.candidates={self.options.candidates}); {remedy}"
            )
        if self.mines:
            self.policy.check_candidates(forbidden, tables, allowed, "sampler.mining")

    def sample(self, round_: SamplingRound) -> Negatives:
        """Return the negatives of all pairs (pairs, num_negatives), checked."""
        negatives = self.choose(round_)
        self._check_shapes(negatives, round_)
        self._check_found(negatives.found)
        argument, found = negatives.argument, negatives.found
        name = f"{type(self).__name__}.choose"
        if (~round_.is_candidate(argument) & found).any():
            tables = [round_.arguments.table(table) for table in round_.tables]
            ranges = " and ".join(f"{table.start} .. {table.stop - 1}" for table in tables)
            raise ValueError(
                f"{name} returned an argument outside {ranges} (sampler.candidates={self.options.candidates})"
            )
        ordered = np.sort(np.where(found, argument, -1 - np.arange(argument.shape[1])), axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise ValueError(f"{name} returned the same argument twice for a pair")
        texts = round_.arguments.identity[argument]
        if round_.forbidden.repeats and (first_of_each_text(found, texts) != found).any():
            raise ValueError(f"{name} returned the same text twice for a pair")
        if (round_.forbidden.contains(np.arange(round_.pairs)[:, None], argument) & found).any():
            raise ValueError(f"{name} returned a forbidden argument")
        measured = round_.source is round_.space and not np.isnan(negatives.distance[found]).any()
        return negatives if measured else round_.measured(negatives)

    def _check_found(self, found: NDArray[np.bool_]) -> None:
        """Log a warning when pairs have fewer than k negatives; raise `InputError` when no pair has one."""
        if not found.any():
            raise InputError(
                f"sampler.name={self.options.name}: found no negative for any pair; widen its search, or the keys of "
                f"sampler.mining (mining={self.options.mining.name})"
            )
        if not found.all():
            log.warning(f"{1 - found.mean():.1%} of the negatives were not found; their places have weight 0")

    def _check_shapes(self, negatives: Negatives, round_: SamplingRound) -> None:
        expected = (round_.pairs, round_.num_negatives)
        for field, values in vars(negatives).items():
            if values.shape != expected:
                raise ValueError(f"{type(self).__name__}.choose returned {field} {values.shape}, not {expected}")
