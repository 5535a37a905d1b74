"""The uncertainty of arms' means over queries and seeds, and of the differences between arms.

Two things vary: the queries and the seeds.

Queries of one group (debates that share texts) depend on each other. So the variance of a mean is computed from sums
over groups, and its error follows Student's t with groups - 1 degrees of freedom.

Seeds are few. The error that they add to a mean over n seeds has the variance (B - I) / n. B is the variance between
the seeds' means; I is the part of B that comes from the sample of queries, which the first variance contains already.
Two or three seeds say little about B. So B is moderated (Smyth 2004): it is the mean of the arm's own B, weighted by
its degrees of freedom, and of the other arms' B. The other arms weigh less than one degree of freedom (`OTHERS_OF_ARM`,
`OTHERS_OF_PAIR`), however many they are, because the seeds of one arm may vary far more than those of the others.
Before arms are averaged, B is divided by m (1 - m), where m is the arm's mean: a share near 0 or 1 varies less. The
error is drawn from its fiducial distribution: normal, with the variance (df B / chi^2(df) - I) / n, at least 0. The
two errors of a difference are drawn independently.

The interval of an arm is Wilson's: it contains each share p from which the mean is at most h sqrt(p (1 - p)) /
sqrt(m (1 - m)) away, where h is the half-width of the symmetric interval. It lies within [0, 1], and reaches farther
towards 1/2, as it must when hits are rare.

A test of two arms flips the signs of the groups' differences at random. The tests of all pairs of arms are one family:
the adjusted p-value is the probability that the largest studentised difference of any pair is as large when all arms
are equal (Tukey's range test, by permutation). So it stays valid for the arm that was chosen because it is the best.
Here, and only here, the seeds of all arms are taken to vary alike; an adjusted p-value is never below the plain one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from negexp.evaluation.seeds import SeedVariance, pool, ratio

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95
# Degrees of freedom that the other arms weigh in an arm's variance between seeds: in the interval of the arm, and in a
# difference. With larger ones, coverage falls below 92 % when one arm varies far more (tests/README.md).
OTHERS_OF_ARM = 0.5
OTHERS_OF_PAIR = 0.8
DECIMALS = 12  # of means: the order of a sum must not decide which arm is the best


class Estimate(NamedTuple):
    """Means over queries and seeds with their interval, each (cells,).

    `sd` is the standard deviation over seeds, NaN for one seed. The interval is NaN for one group of queries, because
    one group gives no variance.
    """

    mean: Floats
    sd: Floats
    low: Floats
    high: Floats


class Difference(NamedTuple):
    """First arm - second arm with its interval and p-values, each (cells,), and the two parts of its variance.

    `p_adjusted` is corrected for the tests of all pairs of arms. `same`: each query has the same mean over seeds in
    both arms. The seeds' variance is NaN when every arm has one seed. The interval is NaN when there is one group.
    """

    mean: Floats
    low: Floats
    high: Floats
    p: Floats
    p_adjusted: Floats
    query_variance: Floats
    seed_variance: Floats
    same: NDArray[np.bool_]


@dataclass(frozen=True)
class Study:
    """Arms that were measured on the same queries.

    Parameters
    ----------
    arms
        Values (seeds, queries, cells) of each arm, in [0, 1]: a cell is one combination of task, stage and metric.
    group
        (queries,) number of each query's group. Queries of one group depend on each other.
    draws
        Number of random draws for intervals and tests.
    """

    arms: Sequence[Floats]
    group: Ints
    seed: int = 0
    draws: int = 4000

    def estimate(self, arm: int) -> Estimate:
        """Return mean, standard deviation over seeds and 95 % interval of an arm's cells."""
        seeds = self.arms[arm].mean(axis=1)  # (seeds, cells)
        sd = seeds.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(seeds.shape[1], np.nan)
        mean = self._arm_means[arm]
        half = self._half_width(
            self._query_variance(self._group_deviations[arm]), self._seed_errors(arm, OTHERS_OF_ARM)
        )
        low, high = wilson(mean, half, t.ppf((1 + LEVEL) / 2, self.groups - 1) / np.sqrt(len(self.group)))
        return Estimate(mean.round(DECIMALS), sd, low, high)

    def difference(self, first: int, second: int) -> Difference:
        """Return the difference of two arms, with a paired test.

        Under the null hypothesis, the two arms can be exchanged within any group of queries. The interval and the test
        include the error of the seeds, so they describe the arms and not only these runs.
        """
        added = self._group_sums[first] - self._group_sums[second]  # (groups, cells)
        mean = added.sum(axis=0)
        seeds = self._seed_errors(first, OTHERS_OF_PAIR) - self._seed_errors(second, OTHERS_OF_PAIR)
        query_variance = self._query_variance(self._group_deviations[first] - self._group_deviations[second])
        half = self._half_width(query_variance, seeds)
        # rounding must not decide whether a permutation that changes nothing is as extreme
        extreme = np.abs(self._signs @ added + seeds) >= np.abs(mean) * (1 - 1e-9)
        p = (1 + extreme.sum(axis=0)) / (1 + self.draws)
        adjusted = np.maximum(p, self._adjusted_p(first, second)) if len(self.arms) > 2 else p
        seed_variance = (
            self._moderated_seed_variance(first, OTHERS_OF_PAIR).net
            + self._moderated_seed_variance(second, OTHERS_OF_PAIR).net
        )
        if self.seed_freedom == 0:
            seed_variance = np.full_like(mean, np.nan)
        same = (self.arms[first].mean(axis=0) == self.arms[second].mean(axis=0)).all(axis=0)
        return Difference(mean, mean - half, mean + half, p, adjusted, query_variance, seed_variance, same)

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return len(self._groups[2])

    @property
    def seed_freedom(self) -> int:
        """Return the degrees of freedom of the variance between seeds; 0 when every arm has one seed."""
        return sum(len(values) - 1 for values in self.arms)

    @cached_property
    def _groups(self) -> tuple[Ints, Ints, Floats]:
        """Return the queries sorted by group (queries,), the start of each group (groups,), and its size (groups,)."""
        _, size = np.unique(self.group, return_counts=True)
        return np.argsort(self.group, kind="stable"), np.cumsum(size) - size, size.astype(np.float64)

    @cached_property
    def _arm_means(self) -> list[Floats]:
        """Return each arm's means (cells,)."""
        return [values.mean(axis=(0, 1)) for values in self.arms]

    @cached_property
    def _group_sums(self) -> list[Floats]:
        """Return the contribution of each group to each arm's means (groups, cells)."""
        return [self._by_group(values.mean(axis=0)) for values in self.arms]

    @cached_property
    def _group_deviations(self) -> list[Floats]:
        """Return `_group_sums` minus the contributions that the groups would have if every query had the mean value."""
        share = self._groups[2][:, None] / len(self.group)
        return [sums - share * mean for sums, mean in zip(self._group_sums, self._arm_means, strict=True)]

    @cached_property
    def _signs(self) -> Floats:
        return self._rng("signs").choice([-1.0, 1.0], (self.draws, self.groups))

    def _query_variance(self, deviations: Floats) -> Floats:
        """Return the variance (cells,) of a mean over groups, from the groups' deviations (groups, cells)."""
        variance: Floats = (deviations**2).sum(axis=0) * self.groups / max(self.groups - 1, 1)
        return variance

    def _half_width(self, query_variance: Floats, seeds: Floats) -> Floats:
        """Return half the length (cells,) of a symmetric 95 % interval; NaN for one group."""
        if self.groups == 1:
            return np.full_like(query_variance, np.nan)
        queries = self._rng("queries").standard_t(self.groups - 1, (self.draws, 1)) * np.sqrt(query_variance)
        half: Floats = np.quantile(np.abs(queries + seeds), LEVEL, axis=0)
        return half

    def _seed_errors(self, arm: int, others: float) -> Floats:
        """Return draws (draws, cells) of the error from an arm's seeds, see `_moderated_seed_variance`."""
        if self.seed_freedom == 0:
            return np.zeros((self.draws, 1))
        rng = self._rng("seeds", arm)
        seeds = self._moderated_seed_variance(arm, others)
        chi_square = rng.chisquare(seeds.freedom, (self.draws, 1))
        return rng.standard_normal((self.draws, 1)) * seeds.deviations(chi_square)

    @cached_property
    def _relative_seed_variances(self) -> list[SeedVariance]:
        """Return the variance between each arm's seeds, divided by m (1 - m), where m is the arm's mean."""
        result = []
        for values, sums, mean in zip(self.arms, self._group_sums, self._arm_means, strict=True):
            seeds, freedom = values.mean(axis=1), len(values) - 1
            added = np.stack([self._by_group(one - one.mean(axis=0)) for one in values])
            added -= sums - self._groups[2][:, None] / len(self.group) * mean
            between = ((seeds - mean) ** 2).sum(axis=0) / max(freedom, 1)
            interaction = np.sum([self._query_variance(one) for one in added], axis=0) / max(freedom, 1)
            scale = ratio(np.ones_like(mean), mean * (1 - mean))
            result.append(SeedVariance(between, interaction, freedom).times(scale))
        return result

    def _moderated_seed_variance(self, arm: int, others: float) -> SeedVariance:
        """Return the seeds' variance of an arm's mean. The other arms weigh `others` degrees of freedom."""
        own, rest = (
            self._relative_seed_variances[arm],
            pool(self._relative_seed_variances[:arm] + self._relative_seed_variances[arm + 1 :]),
        )
        if own.freedom:  # an arm with one seed is assumed to vary as the other arms do
            rest = rest._replace(freedom=min(rest.freedom, others))
        return self._variance_of_mean(arm, pool([own, rest]))

    def _variance_of_mean(self, arm: int, relative: SeedVariance) -> SeedVariance:
        """Return the variance of an arm's mean over seeds, from a variance between seeds divided by m (1 - m)."""
        return relative.times(self._arm_means[arm] * (1 - self._arm_means[arm]) / len(self.arms[arm]))

    def _adjusted_p(self, first: int, second: int) -> Floats:
        """Return the probability (cells,) that any two arms differ as much when all arms are equal."""
        mean = self._group_sums[first].sum(axis=0) - self._group_sums[second].sum(axis=0)
        observed = self._studentised(first, [second], mean[None], np.zeros(1))[0]
        largest: Floats = (self._largest_differences >= observed * (1 - 1e-9)).sum(axis=0)
        return (1 + largest) / (1 + self.draws)

    @cached_property
    def _largest_differences(self) -> Floats:
        """Return draws (draws, cells) of the largest studentised difference of any pair when all arms are equal."""
        queries = np.stack([self._signs @ sums for sums in self._group_sums])  # (arms, draws, cells)
        seeds = np.zeros((len(self.arms), self.draws, 1))
        if self.seed_freedom:
            rng = self._rng("family")
            chi_square = rng.chisquare(self.seed_freedom, (self.draws, 1))
            normal = rng.standard_normal(seeds.shape)
            seeds = np.stack(
                [one * arm.deviations(chi_square) for one, arm in zip(normal, self._equal_seed_variances, strict=True)]
            )
        largest = np.zeros(queries.shape[1:])
        for arm in range(len(self.arms) - 1):
            rest = slice(arm + 1, len(self.arms))
            differences = (queries[arm] - queries[rest], seeds[arm] - seeds[rest])
            studentised = self._studentised(arm, range(len(self.arms))[rest], *differences)
            np.maximum(largest, studentised.max(axis=0), out=largest)
        return largest

    def _studentised(self, arm: int, others: Sequence[int], queries: Floats, seeds: Floats) -> Floats:
        """Return |difference| / standard error (others, ...) of an arm and the other arms, with equal seed variances.

        A difference is the sum of two parts: `queries` and the error of the `seeds`. Flipping signs does not change the
        sum of squares over groups. Minus the square of the mean, it gives the variance between groups.
        """
        own, shape = self._equal_seed_variances[arm].net, (len(others), *[1] * (queries.ndim - 2), -1)
        squares = np.stack([((self._group_sums[arm] - self._group_sums[other]) ** 2).sum(axis=0) for other in others])
        net = np.stack([own + self._equal_seed_variances[other].net for other in others]).reshape(shape)
        squares = squares.reshape(shape)
        rest = np.maximum(squares - queries**2 / self.groups, 1e-9 * squares) * self.groups / max(self.groups - 1, 1)
        return ratio(np.abs(queries + seeds), np.sqrt(rest + net))

    @cached_property
    def _equal_seed_variances(self) -> list[SeedVariance]:
        """Return the seeds' variance of each arm's mean, with the same variance between seeds for all arms."""
        pooled = pool(self._relative_seed_variances)
        return [self._variance_of_mean(arm, pooled) for arm in range(len(self.arms))]

    def _by_group(self, values: Floats) -> Floats:
        """Return the contribution of each group (groups, cells) to the mean of values (queries, cells)."""
        order, start, _ = self._groups
        sums: Floats = np.add.reduceat(values[order], start, axis=0) / len(self.group)
        return sums

    def _rng(self, purpose: str, arm: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, arm, *purpose.encode()])


def wilson(mean: Floats, half: Floats, least: float) -> tuple[Floats, Floats]:
    """Return the shares p (cells,) with |p - mean| <= half sqrt(p (1 - p)) / sqrt(mean (1 - mean)) (Wilson 1927).

    A mean of 0 or 1 has no scale: there, |p - mean| <= least sqrt(p (1 - p)).
    """
    spread = mean * (1 - mean)
    square = np.where(spread > 0, ratio(half**2, spread), least**2) + 0 * half  # NaN stays NaN
    middle = (mean + square / 2) / (1 + square)
    reach = np.sqrt(square * spread + square**2 / 4) / (1 + square)
    return np.maximum(middle - reach, 0), np.minimum(middle + reach, 1)
