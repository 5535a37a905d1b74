"""Uncertainty of means over queries and seeds, and of their differences.

Two things vary: the queries, which are dependent within a group (a debate, see `dependent_groups`), and the seeds.
Groups are many and are resampled. Seeds are few: resampling two or three of them would give intervals that are far too
short, so their effect is drawn from its fiducial distribution instead, N(0, v / seeds) with
v = df s^2 / chi^2(df) - interaction, cut off at 0: what the distribution of Student's t is made of, less the part of
the variance between seeds that resampling the queries accounts for already. s^2 is pooled over all arms compared, but
for an arm whose own is larger than the others' by an F test. A resample of few groups varies too little as well:
deviations from the mean are widened as Student's t is against the normal distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f, norm, t

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95
POWER = 0.8
ALIKE = 0.9  # quantile of F above which an arm's variance between seeds stands alone


class Estimate(NamedTuple):
    """Means over queries and seeds with their interval, each (cells,).

    NaN: `sd` over seeds, for one seed; the interval, for one group of queries, which shows nothing of what varies.
    """

    mean: Floats
    sd: Floats
    low: Floats
    high: Floats


class Difference(NamedTuple):
    """First arm - second arm with its interval and p-value, each (cells,), and the two parts of its variance.

    `same` says whether no query has another value, mean over seeds, in one arm than in the other. The seeds' variance
    is NaN when every arm has one seed; the interval, when there is one group.
    """

    mean: Floats
    low: Floats
    high: Floats
    p: Floats
    query_variance: Floats
    seed_variance: Floats
    same: NDArray[np.bool_]


class SeedVariance(NamedTuple):
    """Variance of seeds' means (cells,), its part that is due to the sample of queries, and degrees of freedom."""

    between: Floats
    interaction: Floats
    freedom: int


@dataclass(frozen=True)
class Study:
    """Arms that were measured on the same queries.

    Parameters
    ----------
    arms
        Values (seeds, queries, cells) of each arm: a cell is one combination of task, stage and metric.
    group
        (queries,) number of the group of each query: queries of one group are dependent.
    draws
        Number of resamples.
    """

    arms: Sequence[Floats]
    group: Ints
    seed: int = 0
    draws: int = 4000

    def estimate(self, arm: int) -> Estimate:
        """Return mean, standard deviation over seeds and 95 % interval of an arm's cells."""
        values = self.arms[arm]
        seeds = values.mean(axis=1)  # (seeds, cells)
        sd = seeds.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(seeds.shape[1], np.nan)
        low, high = self._interval(self._resampled[arm], seeds.mean(axis=0), self._seed_effects(arm))
        return Estimate(seeds.mean(axis=0), sd, np.maximum(low, 0), np.minimum(high, 1))

    def difference(self, first: int, second: int) -> Difference:
        """Return the difference of two arms, with a paired test.

        Under the null hypothesis the two arms' names could be exchanged within any group of queries: signs of the
        groups' differences are flipped at random. The seeds' part is added as it is for the interval; the test is then
        about the arms and not only about these runs of them.
        """
        a, b = self.arms[first], self.arms[second]
        by_query = a.mean(axis=0) - b.mean(axis=0)
        difference = self._sums(by_query) / len(self.group)  # (groups, cells)
        mean = difference.sum(axis=0)
        seeds = self._seed_effects(first) - self._seed_effects(second, "second")
        drawn = self._resampled[first] - self._resampled[second]
        low, high = self._interval(drawn, mean, seeds)
        null = self._signs @ difference + seeds
        # rounding must not decide whether a permutation that changes nothing counts as far out
        extreme = (np.abs(null) >= np.abs(mean) * (1 - 1e-9)).sum(axis=0)
        p = (1 + extreme) / (1 + self.draws)
        variance = self._seed_variance(first) / len(a) + self._seed_variance(second) / len(b)
        return Difference(mean, low, high, p, drawn.var(axis=0), variance, (by_query == 0).all(axis=0))

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return len(self._groups[1])

    @property
    def seed_freedom(self) -> int:
        """Return the degrees of freedom of the variance between seeds; 0 when every arm has one seed."""
        return sum(len(values) - 1 for values in self.arms)

    def _interval(self, drawn: Floats, mean: Floats, seeds: Floats) -> tuple[Floats, Floats]:
        """Return the ends (cells,) of the interval of resampled means with the error of the seeds added."""
        if self.groups == 1:
            return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
        tail, freedom = (1 + LEVEL) / 2, self.groups - 1
        widening = t.ppf(tail, freedom) / norm.ppf(tail) * np.sqrt(self.groups / freedom)
        low, high = np.quantile(mean + widening * (drawn - mean) + seeds, [1 - tail, tail], axis=0)
        return low, high

    def _seed_variance(self, arm: int) -> Floats:
        """Return the variance between an arm's seeds (cells,), less what is due to the sample of queries."""
        if self.seed_freedom == 0:
            return np.full(self.arms[0].shape[2], np.nan)
        between, interaction, _ = self._between_seeds[arm]
        return np.maximum(between - interaction, 0)

    @cached_property
    def _groups(self) -> tuple[Ints, Floats]:
        """Return the code of each query's group (queries,) and the groups' sizes (groups,)."""
        _, code, size = np.unique(self.group, return_inverse=True, return_counts=True)
        return code, size.astype(np.float64)

    @cached_property
    def _weights(self) -> Floats:
        groups = len(self._groups[1])
        return self._rng("groups").multinomial(groups, np.full(groups, 1 / groups), self.draws).astype(np.float64)

    @cached_property
    def _signs(self) -> Floats:
        return self._rng("signs").choice([-1.0, 1.0], (self.draws, len(self._groups[1])))

    @cached_property
    def _resampled(self) -> list[Floats]:
        """Return each arm's mean over seeds on resampled groups (draws, cells); all arms on the same resamples."""
        queries = self._weights @ self._groups[1]
        return [self._weights @ self._sums(values.mean(axis=0)) / queries[:, None] for values in self.arms]

    @cached_property
    def _between_seeds(self) -> list[SeedVariance]:
        """Return the variance between seeds of each arm: pooled over arms, unless an arm's own is clearly larger."""
        own = [self._own_seed_variance(values) for values in self.arms]
        pooled = _pool(own)
        result = []
        for arm, one in enumerate(own):
            others = _pool(own[:arm] + own[arm + 1 :])
            if one.freedom and others.freedom:
                alone = one.between > f.ppf(ALIKE, one.freedom, others.freedom) * others.between
                between = np.where(alone, one.between, pooled.between)
                interaction = np.where(alone, one.interaction, pooled.interaction)
                result.append(SeedVariance(between, interaction, pooled.freedom))
            else:
                result.append(pooled)
        return result

    def _own_seed_variance(self, values: Floats) -> SeedVariance:
        """Return the variance between the seeds of one arm's values (seeds, queries, cells)."""
        seeds, freedom = values.mean(axis=1), len(values) - 1
        # what each group adds to each seed's mean, less what it adds to the mean over seeds
        added = np.stack([self._sums(one - one.mean(axis=0)) for one in values - values.mean(axis=0)]) / len(self.group)
        between = ((seeds - seeds.mean(axis=0)) ** 2).sum(axis=0) / max(freedom, 1)
        interaction = (added**2).sum(axis=(0, 1)) * self.groups / max(self.groups - 1, 1) / max(freedom, 1)
        return SeedVariance(between, interaction, freedom)

    def _seed_effects(self, arm: int, side: str = "first") -> Floats:
        """Return draws (draws, cells) of the error that the choice of an arm's seeds brings."""
        between, interaction, freedom = self._between_seeds[arm]
        if freedom == 0:
            return np.zeros((self.draws, 1))
        chi_square = self._rng("variance").chisquare(freedom, (self.draws, 1))  # one for both sides of a difference
        variance = np.maximum(freedom * between / chi_square - interaction, 0)
        effects: Floats = self._rng(side).standard_normal((self.draws, 1)) * np.sqrt(variance / len(self.arms[arm]))
        return effects

    def _sums(self, values: Floats) -> Floats:
        """Return the sums by group (groups, cells) of values (queries, cells)."""
        code, size = self._groups
        sums = np.zeros((len(size), values.shape[1]))
        np.add.at(sums, code, values)
        return sums

    def _rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose.encode()])


def _pool(parts: Sequence[SeedVariance]) -> SeedVariance:
    """Return the mean of variances, weighted by their degrees of freedom."""
    freedom = sum(part.freedom for part in parts)
    if freedom == 0:
        return SeedVariance(np.zeros(1), np.zeros(1), 0)
    weights = np.array([part.freedom for part in parts]) / freedom
    between, interaction = (weights @ np.stack([part[place] for part in parts]) for place in (0, 1))
    return SeedVariance(between, interaction, freedom)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for a family of tests (Holm 1979), in the order given."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)
    steps = (len(values) - np.arange(len(values))) * values[order]
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in adjusted]


class Needed(NamedTuple):
    """How many queries, or seeds an arm, would show a difference; None where no number would."""

    queries: int | None
    seeds: int | None


def needed_to_see(
    effect: float, query_variance: float, seed_variance: float, queries: int, seeds: tuple[int, int]
) -> Needed:
    """Return what it would take to see a difference of `effect` with a power of 80 % at the level of 5 %.

    Variances are those of the measured difference; that of the queries falls with their number, that of the seeds with
    theirs, and more of the one does not help where the other alone is too large. A seed variance of NaN is not known:
    the queries are counted as if seeds did not vary, the seeds not at all.
    """
    known, seed_variance = not np.isnan(seed_variance), float(np.nan_to_num(seed_variance))
    target = (effect / (norm.ppf((1 + LEVEL) / 2) + norm.ppf(POWER))) ** 2
    more_queries = int(np.ceil(queries * query_variance / (target - seed_variance))) if target > seed_variance else None
    if target <= query_variance or not known:
        return Needed(more_queries, None)
    per_seed = seed_variance / (1 / seeds[0] + 1 / seeds[1])
    return Needed(more_queries, max(1, int(np.ceil(2 * per_seed / (target - query_variance)))))
