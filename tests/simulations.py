"""Measure how often intervals cover the truth and how often tests are wrong, on simulated arms with a known truth.

`python tests/simulations.py` prints the tables of tests/README.md. `python tests/simulations.py FILE` does so for
another statistics.py, for example from an earlier commit: `git show 3b24f3f:negexp/evaluation/statistics.py > FILE`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from negexp.evaluation import statistics


@dataclass(frozen=True)
class Setting:
    """Parameters of simulated arms, and the bounds that the tests require; None: no bound."""

    arms: int = 4
    seeds: int = 3
    debates: int = 50
    debate_sd: float = 0.5
    seed_sd: float = 0.15
    unruly: float = 1.0  # the factor on the first arm's seed_sd
    accuracy: float = 0.42
    gain: float = 0.0  # shift of the last arm
    coverage: float | None = 0.93
    false_positives: float | None = 0.06
    longest: float = 2.2  # bound for the mean length, divided by the length of an interval that knows the variance


SETTINGS = {
    "seeds that vary": Setting(debate_sd=0.7, gain=0.3),
    "seeds that disagree": Setting(debate_sd=0.3, seed_sd=0.5, gain=0.3),
    "seeds that agree": Setting(debate_sd=0.7, seed_sd=0.0, gain=0.3),
    "8 debates": Setting(debate_sd=0.7, debates=8, gain=0.3),
    "2 seeds": Setting(seeds=2, seed_sd=0.2, gain=0.3),
    "2 arms, 2 seeds": Setting(arms=2, seeds=2, seed_sd=0.2),
    "10 arms, 2 seeds": Setting(arms=10, seeds=2, seed_sd=0.2, gain=0.3),
    "10 arms, 2 seeds, one varies 3 times": Setting(
        arms=10, seeds=2, seed_sd=0.2, unruly=3, gain=0.3, coverage=0.92, false_positives=0.07
    ),
    "4 arms, 2 seeds, one varies 10 times": Setting(
        seeds=2, seed_sd=0.05, unruly=10, gain=0.3, coverage=0.92, false_positives=0.07
    ),
    "4 arms, 3 seeds, one varies 10 times": Setting(
        seed_sd=0.05, unruly=10, gain=0.3, coverage=0.92, false_positives=0.07
    ),
    "4 arms, 2 seeds, one varies 10 times, and much": Setting(
        seeds=2, seed_sd=0.1, unruly=10, gain=0.3, coverage=None, false_positives=None
    ),
}
RARE = {
    f"{accuracy:.0%} hits, {debates} debates, {seeds} seeds": Setting(
        arms=2, seeds=seeds, debates=debates, debate_sd=0.7, seed_sd=0.1 * (seeds > 1), accuracy=accuracy, coverage=0.94
    )
    for accuracy, debates, seeds in ((0.05, 8, 1), (0.05, 50, 1), (0.05, 280, 1), (0.05, 50, 3), (0.05, 280, 3))
}
EQUAL = {
    f"{arms} arms, {seeds} seeds": Setting(arms=arms, seeds=seeds, seed_sd=seed_sd)
    for arms, seeds, seed_sd in ((4, 3, 0.15), (12, 1, 0.0), (24, 1, 0.0), (12, 3, 0.15), (24, 3, 0.15), (12, 2, 0.2))
} | {
    "12 arms, 3 seeds, one varies 3 times": Setting(arms=12, unruly=3, false_positives=0.08),
    "12 arms, 2 seeds, one varies 3 times": Setting(arms=12, seeds=2, seed_sd=0.2, unruly=3, false_positives=0.08),
}
BETTER = {
    "4 arms, 3 seeds": Setting(gain=0.45),
    "12 arms, 3 seeds": Setting(arms=12, gain=0.45),
    "24 arms, 3 seeds": Setting(arms=24, gain=0.45),
    "12 arms, 1 seed": Setting(arms=12, seeds=1, seed_sd=0.0, gain=0.25),
}


class Measured(NamedTuple):
    """Shares of simulations, and mean lengths of the intervals of an arm and of a difference.

    below, above: shares of simulations in which the truth is below or above the interval.
    """

    coverage: float
    below: float
    above: float
    difference: float
    false_positives: float
    length: float
    difference_length: float
    deviation: float  # of the estimated accuracy from the true one


def simulate(rng: np.random.Generator, setting: Setting, draws: int, study: Any) -> tuple[Any, np.ndarray]:
    """Return a study of arms with hits and misses, and each arm's true accuracy.

    A query is a hit when the sum of the arm's shift, a debate effect, a query effect, a seed effect and noise is above
    zero. All effects are normal, so the probability of a hit over all queries and seeds is known.
    """
    group = np.repeat(np.arange(setting.debates), rng.integers(1, 10, setting.debates))
    queries = len(group)
    seed_sd = np.full(setting.arms, setting.seed_sd)
    seed_sd[0] *= setting.unruly
    deviation = np.sqrt(setting.debate_sd**2 + 2 + seed_sd**2)
    shift = norm.ppf(setting.accuracy) * deviation
    shift[-1] += setting.gain
    latent = rng.standard_normal((setting.arms, setting.seeds, queries))
    latent += rng.normal(0, setting.debate_sd, setting.debates)[group] + rng.standard_normal(queries)
    latent += (shift[:, None] + rng.standard_normal((setting.arms, setting.seeds)) * seed_sd[:, None])[..., None]
    values = (latent > 0).astype(np.float64)[..., None]
    return study(list(values), group, seed=int(rng.integers(2**31)), draws=draws), norm.cdf(shift / deviation)


def measure(setting: Setting, simulations: int, draws: int = 400, study: Any = statistics.Study) -> Measured:
    """Return the coverage of the first arm's interval and of its difference from the last arm, and false positives."""
    rng = np.random.default_rng(11)
    counts, errors = np.zeros(7), []
    for _ in range(simulations):
        one, truth = simulate(rng, setting, draws, study)
        arm, difference = one.estimate(0), one.difference(setting.arms - 1, 0)
        below, above = truth[0] < arm.low[0], truth[0] > arm.high[0]
        covered = difference.low[0] <= truth[-1] - truth[0] <= difference.high[0]
        found = one.difference(0, 1).p[0] <= 0.05
        lengths = arm.high[0] - arm.low[0], difference.high[0] - difference.low[0]
        errors.append(arm.mean[0] - truth[0])
        counts += [not below and not above, below, above, covered, found, *lengths]
    return Measured._make([*(counts / simulations).tolist(), float(np.std(errors))])


def shown(setting: Setting, simulations: int, draws: int = 1000, study: Any = statistics.Study) -> tuple[float, float]:
    """Return the share of simulations with a significant best arm, and the share of arms that the last arm beats."""
    rng = np.random.default_rng(5)
    found = np.zeros(2)
    for _ in range(simulations):
        one, _ = simulate(rng, setting, draws, study)
        best = int(np.argmax([values.mean() for values in one.arms]))
        p = p_against_others(one, best)
        found += (p <= 0.05).any(), (p <= 0.05).mean() * (best == setting.arms - 1)
    return float(found[0] / simulations), float(found[1] / simulations)


def p_against_others(study: Any, best: int) -> np.ndarray:
    """Return the adjusted p-values of the best arm against each other arm."""
    others = [arm for arm in range(len(study.arms)) if arm != best]
    p = [study.difference(best, other) for other in others]
    return np.array([one.p_adjusted[0] for one in p])


def p_by_holm(holm: Callable[[list[float]], list[float]]) -> Callable[[Any, int], np.ndarray]:
    """Return the earlier `p_against_others` with Holm's correction, limited to the best arm's pairs for many arms."""

    def p_against(study: Any, best: int) -> np.ndarray:
        arms = range(len(study.arms))
        pairs = [(one, other) for one in arms for other in arms[one + 1 :] if len(arms) <= 10 or best in (one, other)]
        more = replace(study, draws=max(study.draws, 100 * len(pairs)))
        adjusted = holm([float(more.difference(*pair).p[0]) for pair in pairs])
        return np.array([p for pair, p in zip(pairs, adjusted, strict=True) if best in pair])

    return p_against


def main(path: str | None, simulations: int = 2000, families: int = 1000) -> None:
    """Print the results of all simulations in Markdown."""
    module: Any = statistics
    if path is not None:
        spec = importlib.util.spec_from_file_location("earlier", Path(path))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["earlier"] = module
        spec.loader.exec_module(module)
        globals()["p_against_others"] = p_by_holm(module.holm)
    for name, setting in (SETTINGS | RARE).items():
        one = measure(setting, simulations, study=module.Study)
        shares = (
            f"{one.coverage:.1%} ({one.below:.1%}, {one.above:.1%}) | {one.difference:.1%} | {one.false_positives:.1%}"
        )
        print(f"| {name} | {shares} | {one.length:.3f} | {one.difference_length:.3f} |", flush=True)
    for name, setting in EQUAL.items():
        print(f"| equal: {name} | {shown(setting, families, study=module.Study)[0]:.1%} |", flush=True)
    for name, setting in BETTER.items():
        any_, arms = shown(setting, families // 2, study=module.Study)
        print(f"| better: {name} | {any_:.1%} | {arms:.1%} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
